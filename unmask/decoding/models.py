"""The models that a decoder runs on, as they are or compiled for few shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from unmask.decoding.cache import SlotCache

READY = 2  # forwards of a shape that make a compiled model ready for it
SHAPES = 512  # that a model may be compiled for: prompts from 1 to 4,096 tokens have 24 widths
Measured = TypeVar("Measured")


@dataclass
class Graphs:
    """What a compiled model keeps, for all that use it: `caches` by rows and slots, since a CUDA graph needs
    them to stay, and `shapes`, how many forwards had each."""

    caches: dict[tuple[int, int], SlotCache] = field(default_factory=dict)
    shapes: Counter = field(default_factory=Counter)


@dataclass(frozen=True)
class Models:
    """The models that a decoder runs on, by role.

    bucket: 1, or of compiled models the least multiple that lengths are padded to (`length`), so that they
    meet few shapes.
    """

    by_role: Mapping[str, torch.nn.Module]
    bucket: int = 1

    def __getitem__(self, role: str) -> torch.nn.Module:
        return self.by_role[role]

    def compiled(self, bucket: int = 32, **options) -> Models:
        """The same models with their bodies under torch.compile. One that is compiled already stays as it is,
        with its graphs and caches.

        options: torch.compile's; by default CUDA graphs ("reduce-overhead"). More than SHAPES shapes are an
        error (torch's FailOnRecompileLimitHit), where torch would go on without compiling, and say nothing.
        """
        import torch._dynamo  # takes seconds: only where it is used

        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = SHAPES
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        for model in self.by_role.values():
            if not hasattr(model, "graphs"):
                body = getattr(model, "model", model)
                _settle(body, records=body is not model)
                body.compile(fullgraph=True, dynamic=False, **(options or {"mode": "reduce-overhead"}))
                model.graphs = Graphs()
        return replace(self, bucket=bucket)

    def slots(self, role: str, rows: int, length: int) -> SlotCache:
        """A cache of nothing yet: a new one, or a compiled model's own."""
        if self.bucket == 1:
            return SlotCache(rows, length)
        model, key = self.by_role[role], (self.rows(rows), length)
        if key not in model.graphs.caches:
            model.graphs.caches[key] = SlotCache(*key).allocate(model)
        cache = model.graphs.caches[key]
        cache.size, cache.valid = rows, [0] * rows
        return cache

    def rows(self, count: int) -> int:
        """The next number of rows that compiled models are fed, a power of two; otherwise as many."""
        return count if self.bucket == 1 else 2 ** (count - 1).bit_length()

    def length(self, length: int) -> int:
        """The next length that they are fed: multiples of the bucket, and further up of larger steps, four
        for each doubling, so that at most a fourth is added; otherwise the length itself."""
        step = self.bucket if self.bucket == 1 else max(self.bucket, 2 ** ((length - 1).bit_length() - 3))
        return -(-length // step) * step

    @property
    def shapes(self) -> Counter:
        """Forwards of compiled models by role and shape."""
        found = Counter()
        for role, model in self.by_role.items() if self.bucket > 1 else ():
            found |= Counter({(role, *shape): count for shape, count in model.graphs.shapes.items()})
        return found

    def settled(self, measure: Callable[[], Measured]) -> Measured:
        """measure(), again until no model is made ready in it.

        A compiled model compiles a shape when it first meets it, records a CUDA graph at the second time and
        replays that from the third on: only then does a clock measure decoding.
        """
        while True:
            before = self.shapes
            measured = measure()
            if all(before[shape] >= READY for shape, count in self.shapes.items() if count > before[shape]):
                return measured

    @property
    def main(self) -> torch.nn.Module:
        """The model of the first role."""
        return next(iter(self.by_role.values()))

    @property
    def mask_id(self) -> int | None:
        """The first model's mask id, which must never come out; None where it has none."""
        return getattr(self.main.config, "mask_token_id", None)

    @property
    def eos_ids(self) -> list[int]:
        """The EOS ids of the first model's configuration; empty where it has none."""
        ids = getattr(self.main.config, "eos_token_id", None)
        return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)

    @property
    def device(self) -> torch.device:
        return self.main.device


def _settle(body: torch.nn.Module, records: bool) -> None:
    """Do now what transformers does in a body's first forward, where it would be compiled with it: once more
    than needed, or, as it takes a lock, not at all. records: its hidden states (a drafter has none)."""
    if hasattr(body.config, "is_causal"):
        body.config.is_causal = body.config.is_causal  # of the instance, as that forward leaves it
    if records and hasattr(body, "can_record_outputs"):
        maybe_install_capturing_hooks(body)
