"""transformers' own `generate` as decoders: the yardstick of ours, in ids and in speed."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from transformers import (
    DiffusionGemmaForBlockDiffusion,
    GenerationConfig,
    LogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    DiffusionGemmaGenerationConfig,
    EntropyBoundSamplerConfig,
)

from unmask.decoding.board import Board
from unmask.decoding.decoder import Decoder
from unmask.decoding.generation import Observer, Stop
from unmask.decoding.row import Row
from unmask.decoding.sampling import at_least_one, number


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
            ids[i, width - len(row.prompt) :] = board.tensor(row.prompt)
            mask[i, width - len(row.prompt) :] = 1
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
                    ids = board.tensor([row.prompt])
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


@dataclass(frozen=True)
class TransformersDiffusion(Decoder):
    """DiffusionGemma's own `generate`, row by row: canvases of uniform noise, denoised until they are stable
    and sure (arXiv 2505.24857's entropy bound, with re-noising).

    max_denoising_steps: of a canvas, at most.
    entropy_bound: nats; of the tokens drawn in a step those of lowest entropy are accepted.
    t_min, t_max: temperatures of the last and of the first step; there is no temperature 0.
    stability_threshold, confidence_threshold: a canvas ends when its likeliest tokens are those of so many
        earlier steps, and their mean entropy is below so many nats.

    The model's generation_config is set aside. Its encoder's forwards (the prompt, each finished canvas)
    count as well as those of its decoder (a canvas each), of which alone transformers makes its
    `tokens_per_forward`. No step keeps a token: those of a canvas are filed under its last forward. Canvases
    are decoded whole, and what lies beyond max_new_tokens is cut.
    """

    max_denoising_steps: int = 48
    entropy_bound: float = 0.1
    t_min: float = 0.4
    t_max: float = 0.8
    stability_threshold: int = 1
    confidence_threshold: float = 0.005
    roles: ClassVar = {"denoiser": "uniform_diffusion"}
    compiles: ClassVar = False

    def __post_init__(self):
        self._config()

    def _config(self, **fields) -> DiffusionGemmaGenerationConfig:
        """The settings as `generate` takes them; ValueError naming the one that is wrong."""
        at_least_one(needed=True, max_denoising_steps=self.max_denoising_steps)
        if type(self.stability_threshold) is not int or self.stability_threshold < 0:
            raise ValueError(
                f"stability_threshold={self.stability_threshold!r} must be a whole number, 0 or more"
            )
        for name in ("entropy_bound", "confidence_threshold"):
            if not number(value := getattr(self, name)) or not 0 < value < math.inf:
                raise ValueError(f"{name}={value!r} must be a number above 0")
        if not (number(self.t_min) and number(self.t_max) and 0 <= self.t_min < self.t_max < math.inf):
            raise ValueError(f"t_min={self.t_min!r} must be 0 or more, and below t_max={self.t_max!r}")
        return DiffusionGemmaGenerationConfig(
            max_denoising_steps=self.max_denoising_steps,
            sampler_config=EntropyBoundSamplerConfig(float(self.entropy_bound)),
            t_min=self.t_min,
            t_max=self.t_max,
            stability_threshold=self.stability_threshold,
            confidence_threshold=float(self.confidence_threshold),
            **fields,
        )

    def run(self, board: Board, observer: Observer | None) -> None:
        model, stop = board.models["denoiser"], board.stop
        ends = {"eos_token_id": sorted(stop.ids)} if stop.ids else {}
        own, model.generation_config = model.generation_config, DiffusionGemmaGenerationConfig()
        try:
            for row in board.rows:
                settings = self._config(max_new_tokens=len(row.canvas), **ends)
                # `generate` draws from torch's global generators.
                devices = [model.device] if model.device.type == "cuda" else []
                with torch.random.fork_rng(devices), fed_to(model) as fed:
                    torch.manual_seed(row.seed)
                    output = model.generate(
                        board.tensor([row.prompt]),
                        generation_config=settings,
                        stopping_criteria=StoppingCriteriaList([Ends(stop, len(row.prompt))]),
                    )
                self._commit(row, fed, output.sequences[0, len(row.prompt) :].tolist(), stop, observer)
        finally:
            model.generation_config = own
        board.rows = []

    def _commit(self, row: Row, fed: list, tokens: list[int], stop: Stop, observer: Observer | None) -> None:
        """Count the forwards, given as (of a canvas, columns); the last one of a canvas commits it."""
        following = [canvas for canvas, _ in fed[1:]] + [False]
        for step, ((canvas, columns), goes_on) in enumerate(zip(fed, following, strict=True)):
            row.count("denoiser", columns)
            if canvas and not goes_on:
                done = range(row.prefix, min(row.prefix + columns, len(row.canvas)))
                row.step = step
                row.commit((done, [tokens[p] for p in done]), stop, observer)


def forwards_of(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules whose calls are a model's forwards: itself, but of DiffusionGemma its encoder and decoder,
    since its `generate` calls the model's `forward` past every hook."""
    own = isinstance(model, DiffusionGemmaForBlockDiffusion)
    return [model.model.encoder, model.model.decoder] if own else [model]


def ids_fed(kwargs: Mapping) -> torch.Tensor:
    """(rows, n) of a call of one of `forwards_of`."""
    return kwargs["decoder_input_ids"] if "decoder_input_ids" in kwargs else kwargs["input_ids"]


@contextmanager
def fed_to(model: torch.nn.Module) -> Iterator[list[tuple[bool, int]]]:
    """The forwards of DiffusionGemma in order, as (of its decoder, columns fed)."""
    fed: list[tuple[bool, int]] = []

    def hook(module, args, kwargs) -> None:
        fed.append(("decoder_input_ids" in kwargs, ids_fed(kwargs).size(1)))

    hooks = [part.register_forward_pre_hook(hook, with_kwargs=True) for part in forwards_of(model)]
    try:
        yield fed
    finally:
        for each in hooks:
            each.remove()


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
