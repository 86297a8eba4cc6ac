"""What a decoder takes and returns: stop rule, models in their roles, and the record every number is made
of."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unmask.decoding.sampling import at_least_one

# Called once per step with the row of the prompt, the canvas positions (0 = first generated token) and the
# ids committed there.
Observer = Callable[[int, list[int], list[int]], None]


@dataclass(frozen=True)
class Stop:
    """Where an answer ends: at a stop id, or where `match` says (the harness finds stop strings with it).

    `match(ids)` returns the number of ids that lie wholly before the first stop string, or None.
    """

    ids: frozenset[int] = frozenset()
    match: Callable[[Sequence[int]], int | None] | None = None

    def cut(self, ids: Sequence[int], known: int = 0) -> int | None:
        """How many of the generated `ids` are useful, or None while no stop is among them. Prompts are never
        looked at.

        The first `known` ids are known to hold no stop id. (A stop string may begin among them.)
        """
        end = next((i for i in range(known, len(ids)) if ids[i] in self.ids), None)
        text_end = self.match(ids[:end]) if self.match else None
        return end if text_end is None else text_end


@dataclass
class Generation:
    """One decoded answer and its cost.

    ids: committed tokens in canvas order, prompt excluded, EOS and what was committed after it included.
    useful: how many of them lie before the first stop. finish: "stop" or "length".
    steps: tokens committed by each step, summing to len(ids).
    forwards, positions: per role, forwards that this row took part in and query positions fed for it, padding
        excluded.
    seconds: wall time; in a batch, an equal share of the batch's.
    """

    ids: list[int]
    useful: int
    finish: str
    steps: list[int]
    forwards: dict[str, int]
    positions: dict[str, int]
    seconds: float = 0.0


@dataclass
class Row:
    """The decoding state of one prompt: what is committed, and what it has cost so far."""

    index: int  # in the list of prompts
    prompt: Tensor  # (p,) ids
    canvas: list[int | None]  # a generated id, or None where still masked
    seed: int
    steps: list[int] = field(default_factory=list)
    forwards: Counter = field(default_factory=Counter)
    positions: Counter = field(default_factory=Counter)
    cached: dict[str, int] = field(
        default_factory=dict
    )  # per role, columns whose keys and values are of committed ids
    prefix: int = 0  # committed without a gap from the left
    end: int | None = None  # useful length, once a stop lies in the gapless prefix

    @property
    def moment(self) -> tuple[int, int]:
        """What the noise of the next step depends on: the seed and the number of the step."""
        return self.seed, len(self.steps)

    def commit(
        self, positions: Sequence[int], ids: Sequence[int], stop: Stop, observer: Observer | None
    ) -> None:
        """Write one step's tokens; notices a stop as soon as everything left of it is committed."""
        if not positions:
            raise AssertionError("a step must commit at least one token, or decoding may never end")
        for position, token in zip(positions, ids, strict=True):
            self.canvas[position] = token
        self.steps.append(len(positions))
        if observer:
            observer(self.index, list(positions), list(ids))
        known = self.prefix
        while self.prefix < len(self.canvas) and self.canvas[self.prefix] is not None:
            self.prefix += 1
        if self.prefix > known:  # else the prefix is the one that no stop was found in
            self.end = stop.cut(self.canvas[: self.prefix], known)

    @property
    def finished(self) -> bool:
        return self.end is not None or self.prefix == len(self.canvas)

    def generation(self) -> Generation:
        ids = [token for token in self.canvas if token is not None]
        useful = self.prefix if self.end is None else self.end
        finish = "length" if self.end is None else "stop"
        return Generation(ids, useful, finish, self.steps, dict(self.forwards), dict(self.positions))


@dataclass(frozen=True)
class Role:
    """A model in a role ("denoiser", "auxiliary", "autoregressive"): every forward goes through here and is
    counted.

    Counting is per row: a forward over a batch of b rows is one forward for each of them, and its cost in
    positions is the number of fed positions that are not padding.
    """

    name: str
    model: torch.nn.Module

    def __call__(
        self, rows: Sequence[Row], ids: Tensor, fed: Sequence[int] | None = None, cache=None, **kwargs
    ):
        """One forward of `ids` (len(rows), n). `fed`: real tokens per row where some are padding (known to
        the caller, so that counting never waits for the device). Other arguments go to the model."""
        for row, count in zip(rows, fed or [ids.size(1)] * len(rows), strict=True):
            row.forwards[self.name] += 1
            row.positions[self.name] += count
        return self.model(input_ids=ids, past_key_values=cache, use_cache=cache is not None, **kwargs)


@dataclass(frozen=True)
class Models:
    """The models that a decoder runs on. `mask_id` is the denoiser's; None for a causal model.

    bucket: 1, or the multiple that fed and cached lengths are padded to, so that compiled models meet few
    shapes; then caches are kept in `caches` from answer to answer, since a CUDA graph needs them to stay
    where they are.
    """

    main: torch.nn.Module
    auxiliary: torch.nn.Module | None = None
    bucket: int = 1
    caches: dict = field(default_factory=dict)

    def compiled(self, bucket: int = 32, **options) -> Models:
        """The same models with their bodies under torch.compile, for batches of one row.

        options: torch.compile's; by default CUDA graphs ("reduce-overhead").
        """
        import torch._dynamo  # takes seconds: only where it is used

        torch._dynamo.config.recompile_limit = 64  # a graph for every multiple of the bucket
        for model in (self.main, self.auxiliary):
            if model is not None:
                model.model.compile(dynamic=False, **(options or {"mode": "reduce-overhead"}))
        return replace(self, bucket=bucket)

    @property
    def mask_id(self) -> int | None:
        return getattr(self.main.config, "mask_token_id", None)

    @property
    def device(self) -> torch.device:
        return self.main.device


class Decoder:
    """What every decoder is: a frozen dataclass of settings with `run`.

    To add one, write a file in decoding/ with a subclass and a YAML in eval_config/decoder/ that names it.
    `run` takes fresh `Row`s and returns when all are finished; each forward goes through a `Role`, each token
    through `Board.commit` (canvas.py).
    """

    causal = False  # the kind of model it runs on: a causal one, or a denoiser
    needs_auxiliary = False

    def check(self, budget: int) -> None:
        """Raise ValueError where the settings do not fit a canvas of `budget` tokens. No model is needed."""

    def run(self, models: Models, rows: list[Row], stop: Stop, observer: Observer | None) -> None:
        raise NotImplementedError

    def decode(
        self,
        models: Models,
        prompts: Sequence[Tensor],
        budget: int,
        stop: Stop,
        seeds: Sequence[int],
        observer: Observer | None = None,
    ) -> list[Generation]:
        """Decode every prompt (1-D id tensors of any lengths) to at most `budget` tokens.

        A row's result depends on its prompt and its seed alone: not on the batch, its size or its order.
        """
        at_least_one(budget=budget)
        self.check(budget)
        if (self.causal or self.needs_auxiliary) and not all(map(len, prompts)):
            raise ValueError(
                f"{type(self).__name__} needs prompts of one token or more: a causal model starts there"
            )
        rows = [
            Row(i, prompt.to(models.device), [None] * budget, seed)
            for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]
        synchronise(models.device)
        start = time.perf_counter()
        with torch.inference_mode():
            if rows:
                self.run(models, rows, stop, observer)
        synchronise(models.device)
        seconds = (time.perf_counter() - start) / max(1, len(rows))
        generations = [row.generation() for row in rows]
        for generation in generations:
            generation.seconds = seconds
            if models.mask_id is not None and models.mask_id in generation.ids:
                raise AssertionError(f"{type(self).__name__} emitted the mask id {models.mask_id}")
        return generations


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
