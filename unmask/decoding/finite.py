"""Whether a model's logits are numbers, looked at in every step without a wait of its own.

An argmax over NaN is a valid id, so that a broken model gives a record that looks like a bad one's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from unmask.decoding.row import Row


def damage(dtype: torch.dtype) -> str:
    """The dtype, and what makes a model's numbers no numbers in it."""
    return (
        f"{str(dtype).removeprefix('torch.')}: its weights are damaged, or the dtype is too narrow for them "
        "(dtype=float32 is not)"
    )


class NotFinite(ValueError):
    """Logits that are NaN or infinite. row: the number of the prompt that they are of."""

    def __init__(self, row: int, step: int, role: str, dtype: torch.dtype):
        self.row = row
        super().__init__(f"step {step}: logits of the {role} are not finite (NaN or inf) in {damage(dtype)}")


class Watch:
    """Sums of the logits that a board's forwards gave. A sum is NaN or inf where one of its terms is.

    On a GPU it is sent to the host without waiting, and read when an event says that it has come: as a rule
    with the ids of the same step, which are sent after it.
    """

    def __init__(self):
        self._sent: list[tuple] = []

    def see(self, role: str, logits: Tensor, rows: Sequence[Row]) -> None:
        """logits: (rows, ..., V) of the step at work. -inf is a token that is never to come out."""
        sums, arrived = logits.flatten(1).sum(-1, dtype=torch.float32), None
        if sums.device.type != "cpu":
            sums, arrived = sums.to("cpu", non_blocking=True), torch.Event(sums.device)
            arrived.record()
        self._sent.append((arrived, sums, role, logits.dtype, [(row.index, row.step) for row in rows]))

    def check(self) -> None:
        """NotFinite for the first row whose logits were not, as far as is known by now."""
        while self._sent and (self._sent[0][0] is None or self._sent[0][0].query()):
            _, sums, role, dtype, rows = self._sent.pop(0)
            for total, (row, step) in zip(sums.tolist(), rows, strict=True):
                if not total < math.inf:  # NaN is not
                    raise NotFinite(row, step, role, dtype)
