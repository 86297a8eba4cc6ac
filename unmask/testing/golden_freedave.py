"""What replays FreeDave: its steps are events, and it has forwards that commit nothing."""

from dataclasses import dataclass, field
from itertools import pairwise

from unmask.decoding.freedave import FreeDave
from unmask.decoding.sampling import step_generator
from unmask.decoding.unmasking import Candidates, Unmasking


@dataclass(frozen=True)
class RecordedVerifications(FreeDave):
    """FreeDave that keeps what every verifying forward did: [drafts, index of the accepted one]."""

    verified: list = field(default_factory=list)

    def note(self, row, drafts, accepted):
        super().note(row, drafts, accepted)
        self.verified.append([len(drafts), accepted])


@dataclass(frozen=True)
class AtLeastTwo(Unmasking):
    """FreeDave's decoder without drafts makes two forwards for a block that one could finish."""

    def step(self, board):
        commits = super().step(board)
        for row, (positions, _) in zip(board.rows, commits, strict=True):
            row.owes = row.state.spent == 1 and len(positions) == len(row.state.block)
        return commits

    def _advance(self, row):
        if row.prefix >= row.state.block.stop and row.state.spent == 1:
            row.state.spent = 2
        else:
            super()._advance(row)

    def _candidates(self, board, row):
        if super()._masks(row):
            return super()._candidates(board, row)
        return Candidates([row.state.block.start], 0, False, step_generator(0, 0, board.ids.device))


def same_events(steps: list, events: list) -> bool:
    """Whether two lists of written (position, id) pairs tell of one course, though one may tell at once what
    the other tells in several."""
    ends, known = [], []
    for course in (steps, events):
        written: set = set()
        states = [frozenset(written := written | set(step)) for step in course]
        known.append(states)
        ends.append(written)
    chain = sorted({*known[0], *known[1]}, key=len)
    return ends[0] == ends[1] and all(a <= b for a, b in pairwise(chain))
