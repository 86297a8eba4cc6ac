"""A row: one prompt, its canvas, and what decoding it has cost so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unmask.decoding.generation import Generation, Observer, Stop

# Canvas positions and the ids to write there; None masks a position again. Where a position stands twice, the
# later one counts.
Commit = tuple[Sequence[int], Sequence[int | None]]


@dataclass
class Row:
    """The decoding state of one prompt: what is committed, and what it has cost so far.

    state is the decoder's own (`Decoder.begin`).
    """

    index: int  # in the list of prompts
    prompt: list[int]  # ids
    canvas: list[int | None]  # a generated id, or None where still masked
    seed: int
    forwards: dict[str, int]
    positions: dict[str, int]
    commits: list[int] = field(default_factory=list)  # per canvas position, its step; -1 where masked
    step: int = 0  # number of the step at work
    idle: int = 0  # steps since more of the canvas was committed, or settled, than ever before
    patience: int | None = None  # the most steps of that kind; None: as many as the canvas is long
    filled: int = 0  # committed positions
    most: int = 0  # and the most that there have been
    prefix: int = 0  # committed without a gap from the left
    searched: int = 0  # the settled positions, in which no stop but `end` lies
    revisable: int | None = None  # what is committed from this position on may change yet; None: nothing may
    lost: list[list[int]] | None = None  # tokens that were taken back, see Generation
    end: int | None = None  # useful length, once a stop lies in the settled prefix
    fills: bool = False  # goes on after an end token until every wanted slot is filled
    until: int = 0  # goes on after an end token until so many slots from the left are filled
    owes: bool = False  # a step of its decoder is still to come, filled or not
    wanted: int | None = None  # of the canvas, if a decoder gives up what stands right of it
    drafted: Sequence[int] = ()  # ids that the step at work drafted, if its decoder drafts
    accepted: int = 0  # how many of them it accepted, from the first on
    state: Any = None

    @classmethod
    def fresh(
        cls, index: int, prompt: list[int], max_new_tokens: int, seed: int, roles: Sequence[str]
    ) -> Row:
        zeros = dict.fromkeys(roles, 0)
        return cls(index, prompt, [None] * max_new_tokens, seed, zeros, dict(zeros), [-1] * max_new_tokens)

    @property
    def first(self) -> int:
        """The column after the gapless prefix: the first mask."""
        return len(self.prompt) + self.prefix

    @property
    def settled(self) -> int:
        """Positions from the left that are committed and that no later step can change."""
        return self.prefix if self.revisable is None else min(self.prefix, self.revisable)

    @property
    def columns(self) -> int:
        """Columns of prompt and canvas."""
        return len(self.prompt) + len(self.canvas)

    @property
    def length(self) -> int:
        """Of the canvas, as far as it is wanted."""
        return len(self.canvas) if self.wanted is None else self.wanted

    @property
    def finished(self) -> bool:
        ended = self.end is not None and not self.fills and self.prefix >= self.until
        return not self.owes and (ended or self.settled >= self.length)

    def count(self, role: str, fed: int) -> None:
        """One forward of a role, with `fed` columns of this row (of all its branches, where it has any)."""
        self.forwards[role] += 1
        self.positions[role] += fed

    def commit(self, commit: Commit, stop: Stop, observer: Observer | None) -> None:
        """End a step: write its tokens. Notices a stop as soon as everything left of it is settled."""
        positions, ids = commit
        searched = self.searched
        for position, token in zip(positions, ids, strict=True):
            self._write(position, token)
        if observer:
            observer(self, list(positions), list(ids))
        self.step, self.drafted, self.accepted = self.step + 1, (), 0
        while self.prefix < len(self.canvas) and self.canvas[self.prefix] is not None:
            self.prefix += 1
        self.searched = max(searched, self.settled)
        news = self.filled > self.most or self.searched > searched
        self.idle, self.most = 0 if news else self.idle + 1, max(self.most, self.filled)
        if self.idle > (self.patience or len(self.canvas)):
            raise AssertionError(f"nothing new in {self.idle} steps: this decoder may never end")
        if self.searched > searched and self.end is None:  # else nothing new can hold a stop
            self.end = stop.cut(self.canvas[: self.searched], searched)

    def _write(self, position: int, token: int | None) -> None:
        """Commit a token, rewrite one, or mask it again (None)."""
        before = self.canvas[position]
        if before is not None and self.lost is not None:
            self.lost.append([position, before, self.commits[position], self.step])
        self.canvas[position] = token
        self.commits[position] = -1 if token is None else self.step
        self.filled += (before is None) - (token is None)
        if token is None:
            self.prefix = min(self.prefix, position)

    def generation(self) -> Generation:
        ids = [token for token in self.canvas if token is not None]
        last = max((p for p, step in enumerate(self.commits) if step >= 0), default=-1)
        useful = self.prefix if self.end is None else self.end
        finish = "length" if self.end is None else "stop"
        return Generation(
            ids, self.commits[: last + 1], useful, finish, self.forwards, self.positions, lost=self.lost
        )
