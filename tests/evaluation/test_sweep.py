"""Sweeps: every setting of a figure is a run of its own, computed once, and the bar says how many are
left."""

import json
import runpy
import shutil
import sys

import pytest

import eval as eval_door
import report
from unmask.configuration.command_line import Sweep
from unmask.paths import ROOT


@pytest.fixture
def sweep(monkeypatch, capsys, models, tmp_path):
    def run(*arguments):
        # Hydra writes multirun.yaml there.
        shared = [
            *models,
            "limit=2",
            f"results={tmp_path / 'results'}",
            f"hydra.sweep.dir={tmp_path / 'sweep'}",
        ]
        monkeypatch.setattr(sys, "argv", ["eval.py", "-m", *arguments, *shared])
        runpy.run_path(str(ROOT / "eval.py"), run_name="__main__")
        captured = capsys.readouterr()
        return [json.loads(line) for line in captured.out.splitlines() if line.startswith("{")], captured.err

    return run


def test_arms_of_a_figure_are_runs_and_are_computed_once(sweep):
    first, err = sweep("figure=fig6", "arm=one,careful", "task=gsm_symbolic")
    assert [line["decoded_now"] for line in first] == [2, 2]
    assert ["leftright" in line["run"] for line in first] == [True, False]
    assert "setting 2 of 2" in err
    again, _ = sweep(
        "figure=fig2", "model=tiny_dream", "decoder.tokens_per_step=1,2"
    )  # K = 1 is figure 6's `one`
    assert [line["decoded_now"] for line in again] == [0, 2] and again[0]["run"] == first[0]["run"]


def test_estimate_of_the_whole_sweep(monkeypatch):
    assert Sweep.describe(3, 10, 6.0) == "decoding"
    monkeypatch.setattr(Sweep, "total", 3)
    monkeypatch.setattr(Sweep, "number", 2)
    assert Sweep.describe(0, 10, 0) == "setting 2 of 3"
    assert (
        Sweep.describe(4, 10, 8.0) == "setting 2 of 3 (all: 0:00:32)"
    )  # 6 documents here, 10 in the last: 2 s each


def test_shards_join_to_the_whole(monkeypatch, capsys, models, tmp_path):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["eval.py", *models, "limit=5", "decoder=leftright", *arguments])
        runpy.run_path(str(ROOT / "eval.py"), run_name="__main__")
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    whole = run(f"run_folder={tmp_path / 'whole'}")
    shards = [run(f"run_folder={tmp_path / 'joined'}", f"shard={i}/2") for i in (1, 2)]
    assert [shard["decoded_now"] for shard in shards] == [3, 2]
    joined = run(f"run_folder={tmp_path / 'joined'}")
    assert joined["decoded_now"] == 0
    for name in ("n", "accuracy", "useful_tokens", "forwards"):
        assert joined[name] == whole[name]
    lines = [json.loads(line) for line in (tmp_path / "joined" / "samples.jsonl").read_text().splitlines()]
    assert len({line["doc_id"] for line in lines}) == len(lines) == 5
    shutil.rmtree(tmp_path / "joined.shards")
    assert run(f"run_folder={tmp_path / 'joined'}", "shard=2/2")["decoded_now"] == 0


@pytest.fixture
def figure(run_command, models, tmp_path):
    """A figure's settings in one process, from eval.py, and the report of them."""
    small = [f"results={tmp_path / 'results'}", "limit=2", "warm_up=0", *models]

    def run(*arguments, door=eval_door):
        code, out, err = run_command(door, *arguments, *small)
        assert code == 0, err
        return json.loads(out.splitlines()[-1])

    return run


def test_a_figure_runs_and_is_drawn_by_the_same_words(figure, tmp_path):
    words = ("figure=fig3", "decoder.mixture_weight=0.1,1.0")
    first = figure(*words)
    assert [line["decoded_now"] for line in first.values()] == [2, 2, 2]
    assert [line["decoded_now"] for line in figure(*words).values()] == [0, 0, 0]
    drawn = figure(*words, door=report)
    assert list(drawn) == ["fig3"] and (tmp_path / "results" / "figures" / "fig3.png").exists()


def test_several_figures_take_turns_together_and_their_shards_join(figure, tmp_path):
    """fig3's arm `one` is fig4's without a lookahead: one run. Each shard is a session of turns."""
    words = ("figure=fig3,fig4", "arm=one", "decoder.max_lookahead=null,4")
    for shard in ("shard=1/2", "shard=2/2"):
        assert figure(*words, shard) == {"shard": shard[6:], "settings": 2}
    joined = figure(*words)
    assert [(line["n"], line["decoded_now"]) for line in joined.values()] == [(2, 0), (2, 0)]
    runs = [folder for folder in (tmp_path / "results").iterdir() if (folder / "samples.jsonl").exists()]
    lines = [(run / "samples.jsonl").read_text().splitlines() for run in runs]
    samples = [[json.loads(line) for line in each] for each in lines]
    sessions = [{sample["doc_id"]: sample["session"] for sample in each} for each in samples]
    assert len(runs) == 2 and sessions[0] == sessions[1] and len(set(sessions[0].values())) == 2


def test_a_figure_refuses_what_is_one_runs(run_command, models, tmp_path):
    code, _, err = run_command(eval_door, "figure=fig3", "run_folder=here", *models)
    assert code == 2 and "run_folder" in err
    code, _, err = run_command(eval_door, "seed=1,2", "run_folder=here", *models)
    assert code == 2 and "run_folder=here is for one run" in err
