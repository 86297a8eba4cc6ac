"""Training batches: examples of several sources in their shares, sorted by length and cut.

A stream is a pure function of its settings and a position (chunk, batch), so a checkpoint holds those (and
the mixture of the chunk) and resuming continues with exactly the batch that an uninterrupted run would have
seen.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import compress
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from unmask.training.sources import Example, Source, source

COUNTED = 4  # chunks that tell which ids are frequent
CHUNK_TOKENS = 200_000  # tokens that are generated, sorted by length and cut into batches at once


@dataclass
class Batch:
    """Token ids (rows, n), filled with EOS to the right, and per token:"""

    ids: torch.Tensor
    answer: torch.Tensor  # bool: a token of an answer, which the model predicts
    end_padding: torch.Tensor  # bool: an EOS right of an answer's own, which a denoiser predicts too
    drill: torch.Tensor  # bool, per row: lines of arithmetic, whose results are the answers

    @property
    def maskable(self) -> torch.Tensor:
        """(rows, n) bool: what a denoiser may find masked: answers and the end padding after them."""
        return self.answer | self.end_padding

    @property
    def tokens(self) -> int:
        return self.ids.numel()

    def to(self, device: torch.device) -> Batch:
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


class Row(NamedTuple):
    """An example on its way into a batch, end padding included."""

    ids: list[int]
    is_answer: list[bool]  # shorter than `ids` by the end padding
    ends: bool


@dataclass
class Stream:
    """Batches of about `batch_tokens` tokens, without end.

    mixture: each source's share of the tokens (see sources.py). It moves linearly to `final_mixture` as
        `progress` goes from 0 to 1.
    canvas: answers are followed by end tokens, in half of the rows up to this length, else up to a drawn one.
    """

    tokenizer: PreTrainedTokenizerBase
    mixture: Mapping[str, float]
    batch_tokens: int
    seed: int = 0
    final_mixture: Mapping[str, float] | None = None
    canvas: int | None = None
    position: tuple[int, int] = (0, 0)  # chunk, batch within it: the next batch to come
    shares: dict[str, float] | None = None  # the mixture of the chunk under way
    _chunk: tuple[int, list[Batch]] = field(default=(-1, []), repr=False)

    def __post_init__(self):
        names = {**self.mixture, **(self.final_mixture or {})}
        self.sources: dict[str, Source] = {
            n: source(n, self.tokenizer, self.seed, self.canvas) for n in names
        }

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the sources whose data could change without the recipe."""
        found = {name: each.fingerprint for name, each in self.sources.items()}
        return {name: mark for name, mark in found.items() if mark is not None}

    def next(self, progress: float = 0.0) -> Batch:
        """The next batch. The mixture of a chunk is fixed when the chunk begins."""
        chunk, index = self.position
        if index == 0 or self.shares is None:
            self.shares = self._shares(progress)
        if self._chunk[0] != chunk:
            self._chunk = (chunk, self._batches(chunk, self.shares))
        batches = self._chunk[1]
        self.position = (chunk, index + 1) if index + 1 < len(batches) else (chunk + 1, 0)
        return batches[index]

    def frequent(self, count: int) -> list[int]:
        """The `count` ids that answers have most often, the most frequent first; where they have fewer, the
        first ones of the vocabulary after them. Moves nothing."""
        found: Counter[int] = Counter()
        for chunk in range(COUNTED):
            shares = self._shares(chunk / (COUNTED - 1))  # of the beginning, up to those of the end
            for row in self._rows(chunk, shares, random.Random(f"{self.seed}/{chunk}")):
                found.update(compress(row.ids, row.is_answer))
        frequent = (i for i, _ in found.most_common())
        return list(dict.fromkeys([*frequent, *range(count)]))[:count]

    def _shares(self, progress: float) -> dict[str, float]:
        first, last = self.mixture, self.final_mixture or self.mixture
        return {
            name: (1 - progress) * first.get(name, 0) + progress * last.get(name, 0) for name in self.sources
        }

    def _batches(self, chunk: int, shares: Mapping[str, float]) -> list[Batch]:
        rng = random.Random(f"{self.seed}/{chunk}")
        rows = self._rows(chunk, shares, rng)
        # Sorting within a little noise buckets the lengths without tying a length to one source for ever.
        rows.sort(key=lambda row: len(row.ids) + rng.random() * 4)
        groups: list[list[Row]] = []
        width = 0
        for row in rows:
            width = max(width, len(row.ids))
            if groups and (len(groups[-1]) + 1) * width <= self.batch_tokens:
                groups[-1].append(row)
            else:
                groups.append([row])
                width = len(row.ids)
        rng.shuffle(groups)
        return [self._collate(group) for group in groups]

    def _rows(self, chunk: int, shares: Mapping[str, float], rng: random.Random) -> list[Row]:
        """The rows of a chunk, source by source."""
        total = sum(shares.values())
        rows = []
        for name, share in shares.items():
            tokens = CHUNK_TOKENS * share / total
            for example in self.sources[name].examples(chunk, rng):
                row = self._row(example, rng)
                if tokens <= 0:
                    break
                rows.append(row)
                tokens -= len(row.ids)
        return rows

    def _row(self, example: Example, rng: random.Random) -> Row:
        ids = example.ids
        padding = self._end_padding(len(example.exchanges[-1][1]), rng) if example.ends else 0
        return Row(ids + [self.tokenizer.eos_token_id] * padding, example.is_answer, example.ends)

    def _end_padding(self, answer: int, rng: random.Random) -> int:
        """How many end tokens follow an answer of so many tokens."""
        if self.canvas is None or answer >= self.canvas:
            return 0
        return (self.canvas if rng.random() < 0.5 else rng.randint(answer, self.canvas)) - answer

    def _collate(self, rows: list[Row]) -> Batch:
        width = max(len(row.ids) for row in rows)
        eos = self.tokenizer.eos_token_id
        answer = [row.is_answer + [False] * (width - len(row.is_answer)) for row in rows]
        end_padding = [[row.ends and i >= len(row.is_answer) for i in range(width)] for row in rows]
        return Batch(
            ids=torch.tensor([row.ids + [eos] * (width - len(row.ids)) for row in rows]),
            answer=torch.tensor(answer),
            end_padding=torch.tensor(end_padding),
            drill=torch.tensor([not row.ends for row in rows]),
        )
