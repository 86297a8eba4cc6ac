"""Decoders: how a model's logits become an answer. They see ids and models, never text, configurations or
tasks.

A decoder is a frozen dataclass of settings, the roles of the models that it needs, and a `step` (decoder.py).
"""

from unmask.decoding.board import Board, Fed
from unmask.decoding.decoder import Decoder
from unmask.decoding.generation import Generation, Observer, Stop
from unmask.decoding.models import Models
from unmask.decoding.row import Row

__all__ = ["Board", "Decoder", "Fed", "Generation", "Models", "Observer", "Row", "Stop"]
