"""check_decoder catches what authors of decoders get wrong, and says what it is."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest

from unmask.decoding import Decoder, Fed
from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.leftright import LeftRight
from unmask.decoding.unmasking import Unmasking
from unmask.testing.check import check_decoder


@dataclass(frozen=True)
class Greedy(LeftRight):
    """It declares a temperature and ignores it."""

    def step(self, board):
        return replace(LeftRight(), tokens_per_step=self.tokens_per_step).step(board)


@dataclass(frozen=True)
class OwnTemperature(Decoder):
    """It accepts a temperature and declares none."""

    temperature: float = 0.0

    def step(self, board):
        return LeftRight(temperature=self.temperature).step(board)


@dataclass(frozen=True)
class Neighbourly(LeftRight):
    """Rows commit more together than alone."""

    def step(self, board):
        return LeftRight.step(replace(self, tokens_per_step=min(2, len(board.rows))), board)


@dataclass(frozen=True)
class Uncounted(LeftRight):
    """It calls the model past the board."""

    def step(self, board):
        board.models.main(input_ids=board.ids, logits_to_keep=None)
        return super().step(board)


@dataclass(frozen=True)
class Twice(LeftRight):
    """Two forwards a step."""

    def step(self, board):
        board.denoise(Fed([range(row.columns) for row in board.rows]))
        return super().step(board)


@dataclass(frozen=True)
class Unseeded(LeftRight):
    """Its noise is nobody's."""

    drawn: list = field(default_factory=lambda: [0], compare=False)

    def step(self, board):
        self.drawn[0] += 1
        return [(positions, [self.drawn[0] % 14] * len(ids)) for positions, ids in super().step(board)]


@dataclass(frozen=True)
class Slow(LeftRight):
    """It goes on after a stop."""

    def run(self, board, observer):
        stop, board.stop = board.stop, replace(board.stop, ids=frozenset())
        rows = list(board.rows)
        super().run(board, observer)
        for row in rows:
            row.end = stop.cut(row.canvas)


@dataclass(frozen=True)
class Masking(LeftRight):
    """It writes the mask."""

    def step(self, board):
        return [(positions, [board.models.mask_id] * len(ids)) for positions, ids in super().step(board)]


@dataclass(frozen=True)
class Lossy(Autoregressive):
    """It calls itself lossless and writes something else."""

    lossless: ClassVar = True

    def step(self, board):
        return [(positions, [(i + 1) % 14 for i in ids]) for positions, ids in super().step(board)]


@pytest.mark.parametrize(
    ("decoder", "sentence"),
    [
        (Greedy(), "declares temperature .* changes no answer"),
        (OwnTemperature(), "accepts temperature=1.5 and does not declare it"),
        (Neighbourly(), "of prompt . depend on its batch"),
        (Uncounted(), "a hook on the model saw"),
        (Twice(), "a step is one forward of the first role"),
        (Unseeded(), "the same prompt and seed gave other answers"),
        (Slow(), "went on after the stop"),
        (Masking(), "emitted the mask"),
        (Lossy(), "declared lossless"),
    ],
)
def test_a_broken_promise_is_named(decoder, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_decoder(decoder, 8)


def test_settings_that_do_not_fit_the_canvas_are_no_broken_promise():
    with pytest.raises(ValueError, match="block_length=5"):
        check_decoder(Unmasking(block_length=5), 12)
