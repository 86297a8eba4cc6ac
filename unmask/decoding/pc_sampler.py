"""PC-Sampler (arXiv 2508.13021): sure, rare tokens first, and those on the left."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from unmask.decoding.board import Board, padded
from unmask.decoding.sampling import number
from unmask.decoding.unmasking import Candidates, Unmasking
from unmask.paths import lookups

SHIPPED = "b724c0c2ce5a"  # `PCSampler.contents` of checkpoints/token_counts.json


@cache
def frequencies_in(path: str) -> tuple[float, ...]:
    """How often each id of a vocabulary is met, as shares: of a JSON file, relative to the project.

    It holds them as `frequencies`, or `counts`, of which ids that were never met count as met once.
    ValueError where it does not.
    """
    try:
        files = lookups(Path(path).expanduser())
        data = json.loads(next((file for file in files if file.is_file()), files[0]).read_text())
        if "frequencies" in data:
            return tuple(map(float, data["frequencies"]))
        return tuple(max(count, 1) / sum(data["counts"]) for count in data["counts"])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ValueError(
            f"frequencies={path}: must be a JSON file with `frequencies` or `counts`, a number for each id "
            f"of the vocabulary ({error!r})"
        ) from error


@dataclass(frozen=True)
class PCSampler(Unmasking):
    """A schedule whose rank is exp(-`lambd` * j) * min(`alpha`, -p * log(f + 1e-9)), for a mask at index j of
    its block whose token has probability p and is met with frequency f.

    frequencies: a file of them, see `frequencies_in`; it belongs to a tokenizer.
    """

    rank: str = "calibrated"
    lambd: float = 0.25
    alpha: float = 10.0
    frequencies: str | None = None
    ranks: ClassVar = ("calibrated",)
    quotas: ClassVar = ("even", "dream", "static", "linear")

    def __post_init__(self):
        super().__post_init__()
        for name in ("lambd", "alpha"):
            if not number(value := getattr(self, name)) or not 0 <= value < math.inf:
                raise ValueError(f"{name}={value!r} must be a number, 0 or more")
        if not isinstance(self.frequencies, str):
            raise ValueError(f"frequencies={self.frequencies!r} must name a file: how often each id is met")

    def check(self, max_new_tokens: int, vocabulary: int | None = None) -> None:
        super().check(max_new_tokens, vocabulary)
        known = len(frequencies_in(self.frequencies))
        if vocabulary is not None and known < vocabulary:
            raise ValueError(
                f"frequencies={self.frequencies} holds {known} ids, and the vocabulary has {vocabulary}: it "
                "is of another tokenizer; docs/decoders_2026.md says how to count"
            )

    @property
    def contents(self) -> dict[str, str]:
        found = hashlib.sha256(repr(frequencies_in(self.frequencies)).encode()).hexdigest()[:12]
        return {} if found == SHIPPED else {"frequencies_content": found}

    def _values(
        self, board: Board, part: range, rows: Sequence[Candidates], scores: Tensor, ids: Tensor
    ) -> Tensor:
        likely = scores.softmax(-1).gather(-1, ids[..., None])[..., 0]
        met = board.tensor(frequencies_in(self.frequencies))[ids]
        index = padded(
            [p - board.rows[i].state.block.start for p in mine.positions]
            for i, mine in zip(part, rows, strict=True)
        )
        rare = (-likely * (met + 1e-9).log()).clamp(max=self.alpha)
        wide = padded([*index, range(ids.size(1))])[:-1]  # some rows of a batch may all be shorter
        return (-self.lambd * board.tensor(wide)).exp() * rare
