"""What titles say, computed from records."""

import pytest

from unmask.report.definition import define
from unmask.report.messages import message

PARETO = {"kind": "pareto", "title": "a", "measures": ["tokens_per_step"]}
CURVE = {
    "kind": "curve",
    "title": "a",
    "x": "decoder.tokens_per_step",
    "measures": ["accuracy", "tokens_per_second", "tokens_per_step"],
}
SWEEP = ("figure=fig2", "model=tiny_dream", "decoder.tokens_per_step=1,2,3")


@pytest.fixture
def found(record, hydra, read):
    """K = 1, 2, 3: right 100, 99, 50 of 100."""

    def per_step(cfg):
        return cfg.decoder.tokens_per_step

    record(
        *SWEEP,
        documents=100,
        total=100,
        per_step=per_step,
        right=lambda cfg: [100, 99, 50][per_step(cfg) - 1],
    )
    return read(*SWEEP, limit=100)


def test_a_front_says_what_is_cheapest_near_the_best(found):
    (line,) = message(define("f", PARETO), found)
    best = "leftright K=2 (tiny_dream), 2 useful tokens per step"
    assert line == f"gsm_symbolic, within 3 points of the most accurate: {best}"


def test_a_curve_says_what_its_ends_are(found):
    (line,) = message(define("f", CURVE), found)
    assert line == "tiny_dream, K = 1 to 3: accuracy (%) 100 → 50 and useful tokens per step 1 → 3"


def test_a_table_says_nothing(found):
    assert message(define("f", {"kind": "table", "title": "a"}), found) == []
