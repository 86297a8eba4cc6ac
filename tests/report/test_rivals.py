"""Decoders against a plain one that costs as much."""

import pytest

from unmask.report.definition import Rivals, define
from unmask.report.figures import draw, prepared
from unmask.report.rivals import findings, table_of

ARMS = ("figure=decoders_2026", "arm=threshold,wino")
PER_STEP = {0.95: 2, 0.9: 3, 0.6: 6}  # tokens a step of the plain threshold
OTHERS = {0.6: (20, 3), 0.7: (2, 2), 0.8: (11, 6)}  # of WINO: right of 24 answers, tokens a step
SETTINGS = ("decoder.threshold=0.95,0.9,0.6", "decoder.threshold=0.6,0.7,0.8")


def facts(cfg):
    tau = cfg.decoder.threshold
    return (11, PER_STEP[tau]) if cfg.decoder.name == "threshold" else OTHERS[tau]


@pytest.fixture
def rivals():
    return Rivals(name="decoders_2026", title="All", measures=["tokens_per_step"], costs=["tokens_per_step"])


@pytest.fixture
def found(rivals, record, hydra, read):
    for arm, settings in zip(("threshold", "wino"), SETTINGS, strict=True):
        words = ("figure=decoders_2026", f"arm={arm}", settings)
        record(
            *words,
            documents=24,
            total=24,
            right=lambda cfg: facts(cfg)[0],
            per_step=lambda cfg: facts(cfg)[1],
        )
    words = ("figure=decoders_2026", "arm=threshold,wino", "decoder.threshold=0.95,0.9,0.8,0.7,0.6")
    return prepared(rivals, read(*words, limit=24))


def test_every_setting_is_paired_with_the_plain_one_of_its_cost(rivals, found):
    table = table_of(rivals, found).set_index("setting")
    words = table["at equal tokens a forward"]
    assert words["wino B=32 tau=0.6 threshold_back=0.9"].startswith("+37.5 [")
    assert words["wino B=32 tau=0.6 threshold_back=0.9"].endswith(": better")
    assert words["wino B=32 tau=0.7 threshold_back=0.9"].endswith(": worse")
    assert words["wino B=32 tau=0.8 threshold_back=0.9"] == "+0.0 [+0.0, +0.0]: no difference larger than 0.0"
    rival = table["rival (tokens a forward)"]["wino B=32 tau=0.6 threshold_back=0.9"]
    assert rival == "threshold B=32 tau=0.9: 1.00 times"
    assert list(findings(rivals, found)) == [
        "gsm_symbolic, at equal tokens a forward: of 3 settings 1 better than threshold, 1 worse"
    ]


def test_without_a_plain_setting_of_that_cost_nothing_is_said(rivals, found):
    rows = found.rows
    rows.loc[rows.decoder == "wino", "tokens_per_step"] = 100
    assert (table_of(rivals, found)["at equal tokens a forward"] == "").sum() == 3


def test_it_is_drawn_with_its_table(rivals, found, tmp_path):
    assert draw(rivals, found, tmp_path).exists()
    page = (tmp_path / "decoders_2026.md").read_text()
    assert "better" in page and "McNemar" in page


def test_an_unknown_cost_is_named():
    with pytest.raises(ValueError, match=r"figure x: draw.costs=speed"):
        define("x", {"kind": "rivals", "title": "t", "measures": ["tokens_per_step"], "costs": ["speed"]})
