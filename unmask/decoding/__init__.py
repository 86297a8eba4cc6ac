"""Decoders: how a model's logits become an answer. They see ids and models, never text, configs or tasks."""

from unmask.decoding.generation import Decoder, Generation, Models, Observer, Stop

__all__ = ["Decoder", "Generation", "Models", "Observer", "Stop"]
