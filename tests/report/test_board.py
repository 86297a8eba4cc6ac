"""The board: the best setting of each method within a loss, against one token a step of its parent."""

import pytest

from unmask.report.board import headlines, lossless, table_of
from unmask.report.definition import Board
from unmask.report.figures import read_published, with_areas
from unmask.report.fronts import aups

FIGURE = ("figure=board", "task=gsm_symbolic")
SETTINGS = {  # right of four answers, tokens a step
    "leftright 1": (4, 1),
    "leftright 2": (3, 2),
    "leftright 3": (2, 3),
    "dparallel 0.1": (4, 2),
    "dparallel 0.5": (3, 6),
}
ARMS = "arm=dream_k1,dream_k2,dream_k3,dream_dparallel01,dream_dparallel05"


def facts(cfg):
    decoder = cfg.decoder
    knob = decoder.get("tokens_per_step") or decoder.get("threshold")
    return SETTINGS[f"{decoder.name} {knob:g}"]


@pytest.fixture
def found(board, record, hydra, read):
    record(*FIGURE, ARMS, right=lambda cfg: facts(cfg)[0], per_step=lambda cfg: facts(cfg)[1])
    found = read(*FIGURE, ARMS)
    return with_areas(found, aups(found.rows, found.scored, *board.first_points))


@pytest.fixture
def board():
    parents = {"tiny_dparallel_dream": "tiny_dream"}
    return Board(name="board", title="All", measures=["tokens_per_step"], losses=[0, 25], parents=parents)


def test_each_method_has_its_fastest_setting_within_each_loss(board, found):
    table = table_of(board, found)
    chosen = list(zip(table.method, table["points lost, at most"], table.setting, strict=True))
    assert chosen == [
        ("leftright", "0", "K=1"),
        ("leftright", "25", "K=2"),
        ("dparallel", "0", "B=8 tau=0.1"),
        ("dparallel", "25", "B=8 tau=0.5"),
    ]
    assert table["against one token"][3].startswith("-25.0 [")  # of its parent, not of the student
    assert [cell.split()[0] for cell in table.PB0[[0, 2]]] == ["1.00", "2.00"]


def test_a_student_without_its_parents_one_token_run_is_left_out(board, found):
    alone = found.rows[found.rows.decoder == "dparallel"]
    found.rows = alone
    assert table_of(board, found).empty


def test_an_area_begins_at_the_parents_one_token_run(board, found):
    areas = aups(found.rows, found.scored, *board.first_points)
    assert {decoder for *_, decoder in areas} == {"leftright", "dparallel"}
    assert {decoder for *_, decoder in aups(found.rows, found.scored, ["leftright K=1"])} == {"leftright"}


def test_published_headlines_are_gsm8ks_each_over_what_its_paper_counts():
    published = read_published("2,dparallel_dream,d2f,dflash")
    points = headlines(published)
    counted = dict(points.groupby("task").x_name.unique().map(list))
    assert counted == {
        "gsm8k": ["tokens per step"],
        "gsm8k-cot 0-shot": ["steps saved (budget over steps)"],
        "gsm8k 4-shot": ["tokens/s (A100)"],
    }
    assert points.accuracy.notna().all()
    assert next(lossless(published)).startswith(
        "DFlash on Qwen3-4B T = 0, lossless: 6.53 tokens per step, 5.15 times"
    )
