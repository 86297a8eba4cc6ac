"""What titles say, computed from records: findings with their intervals, no winners."""

import pytest

from unmask.report.baselines import with_changes
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
def of(record, hydra, read):
    """of(definition, [right of 100 for K = 1, 2, 3]) -> the title's lines."""

    def lines(draw, rights):
        def per_step(cfg):
            return cfg.decoder.tokens_per_step

        record(
            *SWEEP, documents=100, total=100, per_step=per_step, right=lambda cfg: rights[per_step(cfg) - 1]
        )
        definition = define("f", draw)
        return message(definition, with_changes(definition, read(*SWEEP, limit=100)))

    return lines


def test_a_front_says_how_many_settings_differ_from_the_baseline(of):
    (line,) = of(PARETO, [100, 99, 50])
    start = (
        "gsm_symbolic: of 2 settings 1 lose accuracy against leftright K=1; no other difference larger than"
    )
    assert line.startswith(start)
    assert 1 < float(line.removeprefix(start).removesuffix(" points")) < 5


def test_a_front_without_a_finding_names_no_winner(of):
    (line,) = of(PARETO, [97, 99, 98])
    assert line.startswith("gsm_symbolic: accuracy of 2 settings, no difference to leftright K=1 larger than")


def test_a_curve_says_what_its_ends_differ_in(of):
    (line,) = of(CURVE, [100, 99, 50])
    assert line.startswith("tiny_dream, K = 1 to 3: accuracy -50.0 points [-60")
    assert line.endswith("3.00 times the tokens per step [3.00, 3.00]")


def test_a_curve_whose_ends_do_not_differ_says_so(of):
    (line,) = of(CURVE, [98, 50, 99])
    assert line.startswith("tiny_dream, K = 1 to 3: no difference in accuracy larger than ")


def test_a_table_says_nothing(of):
    assert of({"kind": "table", "title": "a"}, [1, 2, 3]) == []
