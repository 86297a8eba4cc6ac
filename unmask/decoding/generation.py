"""What a decoder returns: the record that every number is made of, and the rule where an answer ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unmask.decoding.row import Row

# Called once per step with the row, whose counts include the step, the canvas positions (0 = first generated
# token) and the ids committed there; None where a position is masked again.
Observer = Callable[["Row", list[int], list[int | None]], None]


@dataclass(frozen=True)
class Stop:
    """Where an answer ends: at a stop id, or where `match` says (`lm.text_stop` finds stop strings with it).

    `match(ids, known)` returns the number of ids that lie wholly before the first stop string, or None. The
    first `known` ids hold no whole one.
    """

    ids: frozenset[int] = frozenset()
    match: Callable[[Sequence[int], int], int | None] | None = None

    def cut(self, ids: Sequence[int], known: int = 0) -> int | None:
        """How many of the generated `ids` are useful, or None while no stop is among them.

        The first `known` ids are known to hold no stop id (a stop string may begin among them). Prompts are
        never looked at.
        """
        end = next((i for i in range(known, len(ids)) if ids[i] in self.ids), None)
        text_end = self.match(ids[:end], known) if self.match else None
        return end if text_end is None else text_end


@dataclass
class Generation:
    """One decoded answer and its cost.

    ids: committed tokens in canvas order, prompt excluded, the end id and what was committed after it
        included.
    commits: for every canvas position up to the last committed one, the step (from 0) that committed it; -1
        where a position was left open.
    useful: how many ids lie before the first stop. finish: "stop" or "length".
    forwards, positions: per role, in the order of the decoder's roles: forwards that this row took part in,
        and query positions fed for it, padding excluded. The first role's forwards are the steps.
    seconds: wall time; in a batch, an equal share of the batch's.
    lost: of decoders that revise, every token that was taken back: [canvas position, id, the step that
        committed it, the step that masked or rewrote the position], in the order of the latter. None for all
        others. With `ids` and `commits` it tells every write.
    """

    ids: list[int]
    commits: list[int]
    useful: int
    finish: str
    forwards: dict[str, int]
    positions: dict[str, int]
    seconds: float = 0.0
    lost: list[list[int]] | None = None

    @property
    def steps(self) -> list[int]:
        """Tokens of the answer committed by each step, in order; a forward may commit none."""
        counts = [0] * next(iter(self.forwards.values()))
        for step in self.commits:
            if step >= 0:
                counts[step] += 1
        return counts
