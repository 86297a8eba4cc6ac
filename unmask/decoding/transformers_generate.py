"""transformers' own `generate` as decoders: the yardstick of ours, in ids and in speed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria
from transformers.modeling_outputs import BaseModelOutput

from unmask.decoding.board import Board
from unmask.decoding.decoder import Decoder
from unmask.decoding.generation import Observer, Stop
from unmask.decoding.row import Row


@dataclass(frozen=True)
class TransformersGenerate(Decoder):
    """Greedy, with transformers' dynamic cache and left padding.

    The model's own generation_config is set aside: Qwen2.5-Instruct's has a repetition penalty, say.
    A batch runs until its last row has ended, and a finished row is fed padding until then: its forwards
    count.
    """

    roles: ClassVar = {"target": "causal"}
    lossless: ClassVar = True
    compiles: ClassVar = False

    def run(self, board: Board, observer: Observer | None) -> None:
        rows, model, stop = board.rows, board.models["target"], board.stop
        width = max(len(row.prompt) for row in rows)
        pad = min(stop.ids, default=0)
        ids = torch.full((len(rows), width), pad, device=board.ids.device)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, width - len(row.prompt) :], mask[i, width - len(row.prompt) :] = row.prompt, 1
        ends = {"eos_token_id": sorted(stop.ids)} if stop.ids else {}
        greedy = GenerationConfig(
            do_sample=False, max_new_tokens=len(rows[0].canvas), pad_token_id=pad, **ends
        )
        # What `greedy` leaves open, generate would take from the model's own.
        own, model.generation_config = model.generation_config, GenerationConfig()
        try:
            output = model.generate(
                ids,
                attention_mask=mask,
                generation_config=greedy,
                stopping_criteria=[Ends(stop, width)],
                logits_processor=[Watched(board, rows)],
            )
        finally:
            model.generation_config = own
        board.watch.check()
        written = output[:, width:].tolist()
        for row, tokens in zip(rows, written, strict=True):
            for forward in range(len(tokens)):
                row.count("target", 1 if forward else len(row.prompt))
            for token in tokens:
                row.commit(([row.prefix], [token]), stop, observer)
                if row.finished:
                    break
        board.rows = []


@dataclass(frozen=True)
class TransformersAssisted(Decoder):
    """transformers' own assisted generation with a small causal drafter, greedy, row by row: the opponent of
    `speculative`.

    block_length: the drafter proposes block_length - 1 tokens at a time. (With a fixed length: transformers'
        own schedule and confidence limit are off.)
    """

    block_length: int = 8
    roles: ClassVar = {"target": "causal", "drafter": "causal"}
    lossless: ClassVar = True
    compiles: ClassVar = False

    def __post_init__(self):
        if type(self.block_length) is not int or self.block_length < 2:
            raise ValueError(f"block_length={self.block_length!r} must be 2 or more: one token is drafted")

    def settings(self) -> dict:
        """Of the generation, besides greedy."""
        return {}

    def assistant(self, drafter: torch.nn.Module):
        """The drafter as `generate` takes it."""
        drafter.generation_config = GenerationConfig(
            num_assistant_tokens=self.block_length - 1,
            num_assistant_tokens_schedule="constant",
            assistant_confidence_threshold=0.0,
        )
        return drafter

    def run(self, board: Board, observer: Observer | None) -> None:
        target, drafter, stop = board.models["target"], board.models["drafter"], board.stop
        ends = {"eos_token_id": sorted(stop.ids)} if stop.ids else {}
        greedy = GenerationConfig(
            do_sample=False,
            max_new_tokens=len(board.rows[0].canvas),
            pad_token_id=min(stop.ids, default=0),
            **ends,
            **self.settings(),
        )
        own, theirs = target.generation_config, getattr(drafter, "generation_config", None)
        target.generation_config = GenerationConfig()
        try:
            for row in board.rows:
                with counted(row, {"target": target, "drafter": drafter}):
                    ids = row.prompt[None]
                    output = target.generate(
                        ids,
                        attention_mask=torch.ones_like(ids),
                        generation_config=greedy,
                        stopping_criteria=[Ends(stop, len(row.prompt))],
                        logits_processor=[Watched(board, [row])],
                        assistant_model=self.assistant(drafter),
                    )
                tokens = output[0, len(row.prompt) :].tolist()
                board.watch.check()
                row.commit((range(len(tokens)), tokens), stop, observer)
                # Which forward gave which token is not told: all are filed under the last one.
                row.commits = [row.forwards["target"] - 1 if c >= 0 else c for c in row.commits]
        finally:
            target.generation_config, drafter.generation_config = own, theirs
        board.rows = []


@dataclass(frozen=True)
class TransformersDFlash(TransformersAssisted):
    """transformers' own loop for DFlash (`speculation_type="dflash"`) with our drafter: the opponent of
    `dflash`.

    block_length: of the drafter; None: its own. (It drafts by the whole head, a draft vocabulary or not.)
    """

    block_length: int | None = None
    roles: ClassVar = {"target": "causal", "drafter": "drafter"}

    def __post_init__(self):
        if self.block_length is not None:
            super().__post_init__()

    def settings(self) -> dict:
        return {"speculation_type": "dflash"}

    def assistant(self, drafter: torch.nn.Module):
        return ForTransformers(drafter, self.block_length)


class Ends(StoppingCriteria):
    """Stops a row where `stop` does (end ids transformers finds itself; this is for stop strings)."""

    def __init__(self, stop: Stop, width: int):
        self.stop, self.width = stop, width  # of the prompt, padding included

    def __call__(self, input_ids, scores, **kwargs):
        written = [ids[self.width :].tolist() if self.stop.match else [] for ids in input_ids]
        ended = [self.stop.cut(ids) is not None for ids in written]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)


class Watched(LogitsProcessor):
    """Lets a board's watch see the target's logits, as it does in our own decoders."""

    def __init__(self, board: Board, rows: list[Row]):
        self.board, self.rows = board, rows

    def __call__(self, input_ids, scores):
        self.board.watch.see("target", scores[:, None], self.rows)
        return scores


class ForTransformers(torch.nn.Module):
    """A drafter in the signature that transformers' loop calls."""

    def __init__(self, drafter: torch.nn.Module, block_length: int | None):
        super().__init__()
        self.drafter, self.device = drafter, drafter.device
        self.config = copy.deepcopy(drafter.config)
        self.config.target_layer_ids = drafter.feature_layers
        self.config.mask_token_id = drafter.mask_token_id
        self.config.block_size = block_length or drafter.config.block_size

    def forward(self, noise_embeds, context_hidden_states, position_ids, attention_mask, past_key_values):
        length = context_hidden_states.size(1)
        context = self.drafter.context(context_hidden_states, position_ids[:, :length])
        for layer, (keys, values) in enumerate(context):
            past_key_values.update(keys, values, layer)
        hidden = self.drafter(
            input_ids=noise_embeds,  # embedded already
            embed=torch.nn.Identity(),
            position_ids=position_ids[:, length:],
            past_key_values=past_key_values,
            use_cache=True,
        )
        return BaseModelOutput(last_hidden_state=hidden)


@contextmanager
def counted(row: Row, models: Mapping[str, torch.nn.Module]) -> Iterator[None]:
    """Counts what the models are fed, for a row alone."""

    def hook(role: str, module, args, kwargs) -> None:
        row.count(role, kwargs["input_ids"].size(1))

    hooks = [
        model.register_forward_pre_hook(partial(hook, role), with_kwargs=True)
        for role, model in models.items()
    ]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()
