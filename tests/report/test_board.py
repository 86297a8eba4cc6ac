"""The board: the best setting of each method within a loss, against one token a step of its parent."""

import pytest
from omegaconf import OmegaConf

from unmask.configuration.sweeps import settings
from unmask.records import find_runs
from unmask.report import choice
from unmask.report.board import headlines, lossless, table_of
from unmask.report.choice import validation_of
from unmask.report.definition import Board, define
from unmask.report.figures import draw, prepared
from unmask.report.fronts import aups
from unmask.report.hero import ghosts
from unmask.report.published import points_of

FIGURE = ("figure=board", "task=gsm_symbolic")
SETTINGS = {  # right of four answers, tokens a step
    "leftright 1": (4, 1),
    "leftright 2": (3, 2),
    "leftright 3": (2, 3),
    "dparallel 0.1": (4, 2),
    "dparallel 0.5": (3, 6),
}
ARMS = (
    "arm=leftright,dparallel",
    "model=tiny_dream,tiny_dparallel_dream",
    "decoder.tokens_per_step=1,2,3",
    "decoder.threshold=0.1,0.5",
)


def knob(cfg):
    return cfg.decoder.get("tokens_per_step") or cfg.decoder.get("threshold")


def facts(cfg):
    return SETTINGS[f"{cfg.decoder.name} {knob(cfg):g}"]


@pytest.fixture
def board():
    parents = {"tiny_dparallel_dream": "tiny_dream"}
    return Board(name="board", title="All", measures=["tokens_per_step"], losses=[0, 25], parents=parents)


@pytest.fixture
def found(board, record, hydra, read):
    record(*FIGURE, *ARMS, right=lambda cfg: facts(cfg)[0], per_step=lambda cfg: facts(cfg)[1])
    return prepared(board, read(*FIGURE, *ARMS))


@pytest.fixture
def validated(record, tmp_path, monkeypatch):
    """validated(right, documents=...) -> the runs on validation problems, with so many right a setting."""
    monkeypatch.setattr(choice, "LEAST", 4)

    def runs(right, arms=ARMS, **given):
        record(
            *FIGURE,
            *arms,
            "task.split=validation",
            "batch_size=2",
            right=lambda cfg: right(cfg, facts(cfg)[0]),
            per_step=lambda cfg: facts(cfg)[1],
            **given,
        )
        return validation_of(find_runs(tmp_path / "results")[0])

    return runs


def settings_of(table):
    return list(zip(table.method, table["points lost, at most"], table.setting, strict=True))


def test_validation_problems_choose_and_test_problems_report(board, found, validated):
    """On test, K = 2 loses 25 points and entropy 0.1 none; validation says the reverse of the latter."""
    mirrored = {"dparallel 0.1": 2, "dparallel 0.5": 4}
    table = table_of(
        board, found, validated(lambda cfg, right: mirrored.get(f"{cfg.decoder.name} {knob(cfg):g}", right))
    )
    assert settings_of(table) == [
        ("leftright", "0", "K=1"),
        ("leftright", "25", "K=2"),
        ("dparallel", "0", "B=8 tau=0.5"),
        ("dparallel", "25", "B=8 tau=0.5"),
    ]
    assert table["accuracy %"][3].startswith("75.0 [")  # on test problems
    assert table["against one token"][3].startswith("-25.0 [")  # of its parent, not of the student


def test_nothing_is_chosen_without_validation_runs(board, found, validated):
    table = table_of(board, found, validation_of([]))
    assert set(table.setting) == {choice.NOT_CHOSEN} and "tokens per step" not in table
    assert choice.NOT_CHOSEN == "not chosen: needs task.split=validation, limit=500"
    few = validated(lambda cfg, right: right, documents=3, total=3)
    assert set(table_of(board, found, few).setting) == {choice.NOT_CHOSEN}


def test_a_method_needs_all_its_validation_runs(board, found, validated):
    part = validated(lambda cfg, right: right, arms=[*ARMS[:-1], "decoder.threshold=0.1"])
    chosen = settings_of(table_of(board, found, part))
    assert chosen[0] == ("leftright", "0", "K=1")
    assert chosen[2][2] == f"{choice.NOT_CHOSEN} (1 of 3 settings lack it)"


def test_runs_of_test_problems_never_choose(board, found):
    """Whatever a caller hands over."""
    assert choice.counterparts(found, found) == {}


def test_a_method_of_one_setting_needs_no_choice(board, found):
    found.rows = found.rows[found.rows.label != "leftright K=2"][lambda rows: rows.label != "leftright K=3"]
    table = table_of(board, found, validation_of([]))
    assert settings_of(table)[0] == ("leftright", "0", "K=1")


def test_a_student_without_its_parents_one_token_run_is_left_out(board, found):
    found.rows = found.rows[found.rows.decoder == "dparallel"]
    assert table_of(board, found, validation_of([])).empty


def test_an_area_is_written_once_a_method_with_its_definition_below(board, found, tmp_path):
    table = table_of(board, found, validation_of([]))
    assert [bool(cell) for cell in table.AUP] == [True, False, True, False]
    assert not any(name.startswith("PB") for name in table)
    draw(board, found, tmp_path)
    assert "AUP (d3LLM, arXiv 2601.07568): the area below" in (tmp_path / "board.md").read_text()
    assert "AUP" not in (tmp_path / "board.svg").read_text()


def test_an_area_begins_at_the_parents_one_token_run(board, found):
    areas = aups(found.rows, found.scored, *board.first_points)
    assert {decoder for *_, decoder in areas} == {"leftright", "dparallel"}
    assert {decoder for *_, decoder in aups(found.rows, found.scored, ["leftright K=1"])} == {"leftright"}


def test_published_headlines_are_gsm8ks_each_over_what_its_paper_counts():
    published = points_of("2,dparallel_dream,d2f,dflash")
    points = headlines(published)
    counted = dict(points.groupby("task").x_name.unique().map(list))
    assert counted == {
        "gsm8k": ["tokens per step"],
        "gsm8k-cot 0-shot": ["steps saved (tokens over steps)"],
        "gsm8k 4-shot": ["tokens/s (A100)"],
    }
    assert points.accuracy.notna().all()
    assert next(lossless(published)).startswith(
        "DFlash on Qwen3-4B T = 0, lossless: 6.53 tokens per step, 5.15 times"
    )


# The first picture


def test_the_hero_compares_everything_with_one_arm(record, hydra, read, tmp_path):
    """On a CPU without turns there are no speeds, and FLOPs are compared; published series start at their own
    first point."""
    arms = ("arm=one_token_a_forward,threshold,APD", "decoder.mixture_weight=0.0,0.5")
    record("figure=hero", *arms, right=lambda cfg: 3, per_step=lambda cfg: 2)
    hero = define("hero", OmegaConf.to_container(settings(["figure=hero"])[0].draw))
    found = prepared(hero, read("figure=hero", *arms))
    base = found.rows[found.rows.arm == "one_token_a_forward"].run.iloc[0]
    assert set(found.rows.baseline) == {base} and len(found.rows) > 3
    published = points_of(hero.published)
    speeds = {decoder: x for decoder, x, _ in ghosts(hero, published)}
    assert speeds["apd"][0] == pytest.approx(33.6 / 10.2) and min(speeds["d2f"]) > 10
    assert draw(hero, found, tmp_path).stat().st_size > 10_000
    with pytest.raises(ValueError, match="baseline_arm"):
        define("hero", {"kind": "hero", "title": "t"})
