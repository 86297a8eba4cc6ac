"""This project's decoders for traces of published code that takes tokens back or decodes in branches."""

from dataclasses import dataclass, field
from itertools import pairwise

from unmask.decoding import Decoder
from unmask.decoding.freedave import FreeDave
from unmask.decoding.joint_threshold import JointThreshold
from unmask.decoding.lopa import LoPA
from unmask.decoding.p2 import P2
from unmask.decoding.saber import Saber
from unmask.decoding.sampling import step_generator
from unmask.decoding.unmasking import Candidates, Unmasking
from unmask.decoding.wino import Wino


@dataclass(frozen=True)
class RecordedDrafts(FreeDave):
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


def revising_of(trace: dict) -> Decoder | None:
    """The decoder with the trace's settings; None where it is not implemented."""
    s, method, case = trace["settings"], trace["method"], trace["case"]
    if method == "wino":
        names = ("threshold", "threshold_back", "block_length")
        return Wino(after_end="fill", **{name: s[name] for name in names})
    if method == "saber":
        return Saber(n=s["n"], block_length=s["block_length"])
    if method == "open_dcoder" and s["alg"] == "p2" and case is None:
        return P2(steps=s["steps"])
    if method == "lopa":
        return LoPA(
            block_length=s["block_length"],
            block_add_threshold=s["share_add"],
            decoded_token_threshold=s["share_act"],
            skip_threshold=s["conf_min"],
            fallback=s["rank"],
            branches=s["branches"],
            branch_topp=s["branch_topp"],
            alpha=s["alpha"],
            visible=s["attention"],
            after_end="fill",
        )
    if method == "freedave" and s["draft_steps"] is None:
        quota = {} if s["threshold"] is None else {"quota": "threshold", "threshold": s["threshold"]}
        kind = AtLeastTwo if quota and trace["family"] == "LLaDA" else Unmasking
        return kind(block_length=s["block_length"], cache=s["cache"], after_end="fill", **quota)
    if method == "freedave" and not s["eager"]:
        names = ("draft_steps", "threshold", "cache", "block_length")
        return RecordedDrafts(after_end="fill", **{name: s[name] for name in names})
    if method == "joint_threshold":
        return JointThreshold(**s, store="separate", after_end="fill")
    if method == "llada21":
        return JointThreshold(
            threshold=s["threshold"],
            edit_threshold=s["editing_threshold"],
            max_post_edit_steps=s["max_post_steps"],
            block_length=s["block_length"],
            least=s.get("num_to_transfer", 1),
            cache="none",
            after_end="none" if s.get("eos_early_stop") else "fill",
        )
    return None
