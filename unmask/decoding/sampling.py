"""Choosing tokens from logits: filters, seeded Gumbel noise, and checks of settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy
import torch
from torch import Tensor

NEUTRAL = {"temperature": 0, "top_p": 1, "top_k": None}  # setting -> the value at which it does nothing
ALL = tuple(NEUTRAL)
PARTS, LARGE = 64, 2**15  # of a vocabulary, and from how many ids on it is searched in parts
LEAST_TEMPERATURE = 1e-6  # below it, logits / temperature leave the range of float32 sooner or later


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn from logits. Decoders inherit it: their settings include these three.

    temperature: 0 takes the most likely token; else at least 1e-6. top_p: smallest set of tokens whose
        probabilities reach top_p (1 = all).
    top_k: the k most likely tokens (None = all). The filters apply after the temperature, top-p first.

    sampling: those of the three that a decoder uses. Another one is refused unless it does nothing, so that
        no record names a temperature that was ignored.
    """

    sampling: ClassVar[tuple[str, ...]] = ()

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None

    def __post_init__(self):
        if not number(self.temperature) or not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature!r} must be 0 (greedy) or more, and finite")
        if 0 < self.temperature < LEAST_TEMPERATURE:
            raise ValueError(
                f"temperature={self.temperature!r} is too low to compute with: 0 (greedy), or "
                f"{LEAST_TEMPERATURE} or more"
            )
        if not number(self.top_p) or not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p!r} must be above 0 and at most 1 (1 keeps every token)")
        if self.top_k is not None:
            at_least_one(top_k=self.top_k)
        for name, neutral in NEUTRAL.items():
            value = getattr(self, name)
            if name not in self.sampling and value != neutral:
                raise ValueError(f"{name}={value!r}: {type(self).__name__} does not use {name}, remove it")

    @property
    def tempers(self) -> bool:
        """Whether `scores` are anything but the logits."""
        return any(getattr(self, name) != neutral for name, neutral in NEUTRAL.items())

    def scores(self, logits: Tensor) -> Tensor:
        """Tempered and filtered logits, -inf where filtered out: (..., V) -> (..., V).

        At temperature 0 only the filters apply: they change no argmax, but how sure it looks (as in Dream).
        """
        scores = logits if self.temperature == 0 else logits / self.temperature
        if self.top_p < 1:
            probabilities = scores.softmax(-1)
            scores = scores.masked_fill(probabilities < least_of_top(probabilities, self.top_p), -torch.inf)
        if self.top_k is not None and self.top_k < scores.size(-1):
            least = scores.topk(self.top_k, dim=-1).values[..., -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        return scores

    def pick(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """Token ids (...): the argmax of scores plus Gumbel noise, an exact sample of softmax(scores).

        Without sorting: the filters keep a token and all that are likelier, so the unfiltered winner wins
        unless the likelier ones alone reach top_p (or are top_k); then it goes, with all that are less
        likely, and the next winner is tried.
        """
        if noise is None:
            return greatest(logits)
        scores = logits / self.temperature
        if self.top_p == 1 and self.top_k is None:
            return greatest(scores + noise)
        size = scores.size(-1)
        return self._allowed(scores.reshape(-1, size), (noise + scores).reshape(-1, size)).view(
            scores.shape[:-1]
        )

    def _allowed(self, scores: Tensor, noisy: Tensor) -> Tensor:
        """(n, V), (n, V) -> (n,)."""
        ids = greatest(noisy)[..., None]
        likelier = scores > scores.gather(-1, ids)
        out = (scores.softmax(-1) * likelier).sum(-1) >= self.top_p
        if self.top_k is not None:
            out |= likelier.sum(-1) >= self.top_k
        ids = ids[..., 0]
        again = out.nonzero()[:, 0]  # a GPU waits here, to count them
        if len(again):
            rest = noisy[again].masked_fill(~likelier[again], -torch.inf)
            ids[again] = self._allowed(scores[again], rest)
        return ids

    def gumbel(
        self, streams: Sequence[tuple[int, int]], offsets: range | Sequence[range], logits: Tensor
    ) -> Tensor | None:
        """Standard Gumbel noise, (len(streams), len(offsets), V); None when greedy.

        streams: (seed, step) of each row. offsets: of the positions, from the first one of the step; those of
        all rows, or of each. V and the device are those of `logits`. A position has numbers of its own,
        whichever others are drawn with it.
        """
        if self.temperature == 0:
            return None
        each = [offsets] * len(streams) if isinstance(offsets, range) else offsets
        shape = (len(streams), len(each[0]), logits.size(-1))
        bits = torch.empty(shape, dtype=torch.int32, device=logits.device)
        generator = torch.Generator(logits.device)
        for row, stream, mine in zip(bits, streams, each, strict=True):
            for draws, state in zip(row, _states(*stream, mine.stop)[mine.start :], strict=True):
                draws.random_(generator=generator.manual_seed(state))
        return standard_gumbel(bits)

    def generators(self, rows: Sequence, device: torch.device) -> list[torch.Generator | None]:
        """The random numbers that each row draws from in this step; None when greedy."""
        if self.temperature == 0:
            return [None] * len(rows)
        return [step_generator(row.seed, row.step, device) for row in rows]

    def noise(self, generator: torch.Generator, shape: Sequence[int]) -> Tensor | None:
        """Standard Gumbel noise; None when greedy."""
        if self.temperature == 0:
            return None
        bits = torch.empty(*shape, dtype=torch.int32, device=generator.device)
        return standard_gumbel(bits.random_(generator=generator))

    def draw(
        self, logits: Tensor, generators: Sequence[torch.Generator | None], counts: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Tempered and filtered scores (rows, k, V), and a token of each position (rows, k).

        Rows use `counts` of the k positions, and draw from their own generators."""
        scores = self.scores(logits)
        noise = self.row_noise(generators, counts, logits)
        return scores, greatest(scores if noise is None else scores + noise)

    def row_noise(self, generators: Sequence, counts: Sequence[int], logits: Tensor) -> Tensor | None:
        """Gumbel noise like `logits` (rows, k, V) for rows that use `counts` of the k positions, each
        row's from its own generator and zero behind them; None when greedy."""
        if self.temperature == 0:
            return None
        noise = torch.zeros_like(logits)
        for row, generator, count in zip(noise, generators, counts, strict=True):
            row[:count] = self.noise(generator, (count, logits.size(-1)))
        return noise


def greatest(scores: Tensor) -> Tensor:
    """The id of the highest score, of equal ones the first: (..., V) -> (...).

    It is argmax, by the kernel that takes a third of its time on some CPUs and as long on others. Both take
    ten times as long as the highest score alone: of a large vocabulary they search the part that has it.
    """
    size = scores.size(-1)
    if scores.device.type != "cpu" or size < LARGE or size % PARTS:
        return scores.max(-1).indices
    parts = scores.unflatten(-1, (PARTS, size // PARTS))
    part = parts.amax(-1).max(-1).indices[..., None]
    mine = parts.take_along_dim(part[..., None], -2)[..., 0, :]
    return (part * (size // PARTS) + mine.max(-1, keepdim=True).indices)[..., 0]


def agreed(drafted: Sequence[int], theirs: Sequence[int]) -> int:
    """How many drafted tokens, from the first on, equal those that were judged right."""
    pairs = zip(drafted, theirs, strict=False)
    return next((k for k, (mine, other) in enumerate(pairs) if mine != other), len(drafted))


def least_of_top(probabilities: Tensor, mass: float, k: int = 256) -> Tensor:
    """The least probability that top-p keeps, (..., V) -> (..., 1): likelier ones sum to less than `mass`.

    Few tokens have most of the mass, as a rule: only where the first k have too little is the vocabulary
    sorted.
    """
    k = min(k, probabilities.size(-1))
    top = probabilities.topk(k).values
    likelier = top.cumsum(-1) - top
    least = top.masked_fill(likelier >= mass, 1).amin(-1, keepdim=True)
    short = (likelier[..., -1] < mass) & (k < probabilities.size(-1))
    if short.any():
        least[short] = least_of_top(probabilities[short], mass, probabilities.size(-1))
    return least


def standard_gumbel(bits: Tensor) -> Tensor:
    """Standard Gumbel noise in float32 from uniform integers in [0, 2^31): -log(-log(1 - u)).

    A third of the time of exponential_ on a CPU. The winners are the draws of small u, where float32 keeps
    all 31 bits of it; the 24 bits of a float32 uniform would leave a vocabulary of 100,000 with coarse
    winners, and infinite ones.
    """
    return bits.float().add_(0.5).mul_(-(2.0**-31)).log1p_().neg_().log_().neg_()


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The random numbers of one step of one document: equal arguments give equal numbers."""
    return torch.Generator(device).manual_seed(_states(seed, step, 1)[0])


def _states(seed: int, step: int, count: int) -> list[int]:
    """The first `count` generator seeds of one step of one document."""
    # Hashed, because a CPU generator reads 32 bits alone: no plain sum keeps apart seeds that differ above
    # them.
    mixed = numpy.random.SeedSequence(seed % 2**64, spawn_key=(step,)).generate_state(count, numpy.uint64)
    return [int(state) >> 1 for state in mixed]


def exclude(logits: Tensor, token: int | None) -> Tensor:
    """Logits in float32 with -inf at the token that must never come out (the mask id)."""
    logits = logits.float()
    if token is not None and token < logits.size(-1):
        logits[..., token] = -torch.inf
    return logits


def at_least_one(needed: bool = False, **settings: int | None) -> None:
    """ValueError naming the setting that is not a whole number of 1 or more; None passes unless `needed`."""
    for name, value in settings.items():
        if (needed or value is not None) and (type(value) is not int or value < 1):
            raise ValueError(f"{name}={value!r} must be a whole number, 1 or more")


def share(**settings: float) -> None:
    """ValueError naming the setting that is no share: a number from 0 to 1."""
    for name, value in settings.items():
        if not number(value) or not 0 <= value <= 1:
            raise ValueError(f"{name}={value!r} must be a number from 0 to 1")


def one_of(known: Iterable, **settings: object) -> None:
    """ValueError naming the setting that is none of the known values."""
    for name, value in settings.items():
        if value not in known:
            raise ValueError(f"{name}={value!r} must be one of {', '.join(map(str, known))}")


def true_or_false(**settings: bool) -> None:
    """ValueError naming the setting that is neither."""
    for name, value in settings.items():
        if type(value) is not bool:
            raise ValueError(f"{name}={value!r} must be true or false")


def divides(block_length: int | None, max_new_tokens: int) -> None:
    """ValueError where blocks of this length do not fill the canvas; None is one block."""
    if max_new_tokens % (block_length or max_new_tokens):
        raise ValueError(f"block_length={block_length} does not divide max_new_tokens={max_new_tokens}")


def number(value: object) -> bool:
    """Whether a setting is a number: True and False are none."""
    return type(value) in (int, float)
