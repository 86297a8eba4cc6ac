"""Choosing tokens from logits: filters, seeded Gumbel noise, and the check of settings that all decoders share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn from logits. Decoders inherit it: their settings include these three.

    temperature: 0 takes the most likely token. top_p: smallest set of tokens whose probabilities reach top_p (1 = all).
    top_k: the k most likely tokens (None = all). The filters apply after the temperature, top-p first.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be 0 (greedy) or more, and finite")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be above 0 and at most 1 (1 keeps every token)")
        if self.top_k is not None:
            at_least_one(top_k=self.top_k)

    def scores(self, logits: Tensor) -> Tensor:
        """Tempered and filtered logits, -inf where filtered out: (..., V) -> (..., V). Untouched at temperature 0."""
        if self.temperature == 0:
            return logits
        scores = logits / self.temperature
        if self.top_p < 1:
            ordered, order = scores.sort(dim=-1, descending=True)
            probabilities = ordered.softmax(-1)
            before = probabilities.cumsum(-1) - probabilities
            drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= self.top_p)
            scores = scores.masked_fill(drop, -torch.inf)
        if self.top_k is not None and self.top_k < scores.size(-1):
            least = scores.topk(self.top_k, dim=-1).values[..., -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        return scores

    def pick(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """Token ids (...): the argmax of scores plus Gumbel noise, an exact sample of softmax(scores).

        Without sorting: the filters keep a token and all that are likelier, so the unfiltered winner wins unless the likelier
        ones alone reach top_p (or are top_k); then it goes, with all that are less likely, and the next winner is asked.
        """
        if noise is None:
            return logits.argmax(-1)
        scores = logits / self.temperature
        noisy = scores + noise
        ids = noisy.argmax(-1, keepdim=True)
        if self.top_p == 1 and self.top_k is None:
            return ids[..., 0]
        probabilities = scores.softmax(-1)
        while True:
            likelier = scores > scores.gather(-1, ids)
            out = (probabilities * likelier).sum(-1, keepdim=True) >= self.top_p
            if self.top_k is not None:
                out |= likelier.sum(-1, keepdim=True) >= self.top_k
            if not out.any():
                return ids[..., 0]
            noisy = noisy.masked_fill(out & ~likelier, -torch.inf)
            ids = noisy.argmax(-1, keepdim=True)

    def gumbel(self, moments: Sequence[tuple[int, int]], places: range, logits: Tensor) -> Tensor | None:
        """Standard Gumbel noise for some places of each row, (len(moments), len(places), V); None when greedy.

        moments: (seed, step) of each row. V and the device are those of `logits`. A place has numbers of its own, whichever
        others are drawn with it.
        """
        if self.temperature == 0:
            return None
        noise = torch.empty(len(moments), len(places), logits.size(-1), device=logits.device)
        generator = torch.Generator(logits.device)
        for row, moment in zip(noise, moments, strict=True):
            for draws, state in zip(row, _states(*moment, places.stop)[places.start :], strict=True):
                draws.exponential_(generator=generator.manual_seed(state))
        return noise.log_().neg_()

    def noise(self, generator: torch.Generator, shape: Sequence[int]) -> Tensor | None:
        """Standard Gumbel noise in float32, -log of a standard exponential; None when greedy."""
        if self.temperature == 0:
            return None
        return torch.empty(*shape, device=generator.device).exponential_(generator=generator).log_().neg_()


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The random numbers of one step of one document: equal arguments, equal numbers, whatever was drawn before."""
    return torch.Generator(device).manual_seed(_states(seed, step, 1)[0])


def _states(seed: int, step: int, count: int) -> list[int]:
    """The first `count` generator seeds of one step of one document."""
    # Hashed, because a CPU generator reads 32 bits alone: no plain sum keeps seeds apart that differ above them.
    mixed = numpy.random.SeedSequence(seed % 2**64, spawn_key=(step,)).generate_state(count, numpy.uint64)
    return [int(state) >> 1 for state in mixed]


def ban(logits: Tensor, token: int | None) -> Tensor:
    """Logits in float32 without the token that must never come out (the mask id)."""
    logits = logits.float()
    if token is not None and token < logits.size(-1):
        logits[..., token] = -torch.inf
    return logits


def at_least_one(**settings: int | None) -> None:
    """ValueError naming the setting that is not a whole number of 1 or more; None passes."""
    for name, value in settings.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name}={value!r} must be a whole number, 1 or more")
