"""ParallelBench's figure: points beside exact bounds, and the most tokens a step at an accuracy (PB)."""

import pandas as pd
import pytest

from unmask.decoding.freedave import FreeDave
from unmask.decoding.memory import Credit, Klass
from unmask.decoding.p2 import P2
from unmask.decoding.saber import Saber
from unmask.decoding.slowfast import SlowFast
from unmask.decoding.wino import Wino
from unmask.report import parallel
from unmask.report.bounds import bound
from unmask.report.definition import define
from unmask.report.figures import draw, prepared
from unmask.report.fronts import fastest
from unmask.tasks import problems

FIGURE = (
    "figure=parallelbench",
    "model=tiny_parallel_llada",
    "arm=leftright,threshold",
    "decoder.tokens_per_step=1,2",
    "decoder.threshold=0.9,0.3",
    "task.name=line_shuffle,line_copy",
    "decoder.temperature=1.0",
)


@pytest.fixture
def definition():
    return define("parallelbench", {"kind": "parallel", "title": "ParallelBench", "levels": [75, 50]})


@pytest.fixture
def found(definition, record, hydra, read):
    """leftright: 1 a step with 4 of 4 right, 2 a step with 3; threshold: 3 a step with 2, and 6 with 1."""

    def fast(cfg):
        return cfg.decoder.get("tokens_per_step") or {0.9: 3, 0.3: 6}[cfg.decoder.threshold]

    record(
        *FIGURE,
        metric="rule,answer",
        right=lambda cfg: {1: 4, 2: 3, 3: 2, 6: 1}[fast(cfg)],
        per_step=fast,
    )
    return prepared(definition, read(*FIGURE, metric="rule,answer"))


def test_every_setting_has_the_bound_of_its_own_documents(found):
    sizes = [int(problem.template) for problem in problems.held_out("line_shuffle", "test")[:4]]
    for row in found.rows.itertuples():
        decoder = parallel.decoder_of(found.configs[row.run]["decoder"])
        assert decoder.temperature == 1
        assert row.bound == (1 if row.task == "line_copy" else bound(decoder, "line_shuffle", sizes))
    assert (
        found.rows.bound.min()
        < 0.6
        < found.rows[found.rows.plain.str.startswith("leftright K=1")].bound.min()
    )


def test_decoders_that_are_not_enumerated_have_no_bound_but_where_every_token_is_certain():
    assert bound(FreeDave(), "line_shuffle", [4]) == 1 and bound(Wino(), "line_copy", [4]) == 1
    for decoder in (FreeDave(threshold=0.9), Wino(), Saber(), P2(), Klass(), Credit(), SlowFast()):
        assert bound(decoder, "line_shuffle", [4]) is None


def test_pb_is_the_fastest_measured_setting_that_is_right_often_enough(definition, found):
    table = parallel.table_of(definition, found).set_index(["task", "decoder"])
    assert table.index.get_level_values("task").tolist() == [
        *["line_shuffle"] * 2,
        *["line_copy"] * 2,
        *["all tasks"] * 2,
    ]
    for task in ("line_shuffle", "all tasks"):
        assert table.loc[(task, "leftright"), "PB75"].startswith("2.00 [")
        assert "K=2" in table.loc[(task, "leftright"), "PB75"]
        assert table.loc[(task, "threshold"), "PB75"] == "-"
        assert table.loc[(task, "threshold"), "PB50"].startswith("3.00 [")
    assert table.n.tolist() == [4, 4, 4, 4, 8, 8]


def test_the_figure_has_a_panel_a_task_and_its_table(definition, found, tmp_path):
    picture = draw(definition, found, tmp_path)
    assert picture.exists() and "bound" in pd.read_csv(picture.with_suffix(".csv"))
    drawn = picture.with_suffix(".svg").read_text()
    for words in ("line_shuffle", "line_copy", "an ideal model", "tiny_parallel_llada: accuracy (%)"):
        assert words in drawn
    table = picture.with_suffix(".md").read_text()
    assert "PBx: tokens a step" in table and "| all tasks | leftright | 8 | 2.00 [" in table


def documents(right, useful=6, steps=2):
    return [
        {"doc_id": i, "task": "t", "correct": float(r), "useful": useful, "forwards": {"denoiser": steps}}
        for i, r in enumerate(right)
    ]


def test_pb_by_hand():
    slow, quick = documents([1] * 9 + [0], steps=6), documents([1] * 7 + [0] * 3, steps=2)
    scored = {"a": {"slow": slow, "quick": quick}}
    assert fastest(scored, 90)[0] == "slow" and fastest(scored, 90)[1].value == 1
    best, value = fastest(scored, 70)
    assert (best, *value) == ("quick", 3, 1, 3)  # in some draws quick falls short
    assert fastest(scored, 70, seed=1)[1] == fastest(scored, 70, seed=1)[1]
    assert fastest(scored, 91) == (None, None)
    both = scored | {"b": {"slow": documents([1] * 10, steps=6), "quick": documents([1] * 10, steps=3)}}
    best, value = fastest(both, 85)  # quick: 70 and 100, at 3 and 2 tokens a step
    assert (best, value.value) == ("quick", 2.5)
