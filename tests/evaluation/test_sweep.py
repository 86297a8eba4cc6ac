"""Sweeps: every setting of a figure is a run of its own, computed once, and the bar says how many are
left."""

import json
import runpy
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

import eval as eval_door
import report
from unmask.configuration.command_line import Sweep
from unmask.evaluation.cards import cards_of
from unmask.evaluation.evaluation import Evaluation
from unmask.models.loading import Source
from unmask.paths import ROOT
from unmask.records.run import find_runs


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
def gpu(monkeypatch):
    """Within it this machine has a GPU, as far as records tell: models are on the CPU all the same."""
    real = Source.load

    @contextmanager
    def within():
        with monkeypatch.context() as patch:
            patch.setattr("unmask.evaluation.setup.check_device", lambda device: device)
            patch.setattr("unmask.evaluation.recorded_lm.check_device", lambda device: device)
            patch.setattr(Evaluation, "rows_that_fit", lambda *_: 2)
            patch.setattr(
                Source, "load", lambda self, device, dtype, **kw: real(self, torch.device("cpu"), dtype, **kw)
            )
            yield

    return within


def test_shards_of_a_gpu_are_joined_and_scored_where_there_is_none(gpu, models, tmp_path, run_command):
    words = [*models, "decoder=leftright", f"results={tmp_path}", "batch_size=auto", "dtype=float32"]
    with gpu():
        for i in (1, 2):
            Evaluation.of(*words, "limit=5", "device=cuda", f"shard={i}/2").decode()
    code, out, err = run_command(eval_door, *words, "limit=5")  # device=auto, which is this CPU
    assert code == 0, err
    joined = json.loads(out.splitlines()[-1])
    assert joined["decoded_now"] == 0 and joined["n"] == 5
    (run,), _ = find_runs(tmp_path)
    assert run.config["device"] == "cuda" and run.config["batch_size"] == 2
    for words_of_device in ([], ["device=cuda", "batch_size=2"]):  # what is missing is no other run's
        code, out, err = run_command(eval_door, *words, "limit=6", *words_of_device)
        assert code == 2 and "1 of 6 documents are not in" in err and "no CUDA device" in err
    code, out, err = run_command(eval_door, *words, "limit=1", "device=cpu")
    assert code == 0 and json.loads(out.splitlines()[-1])["decoded_now"] == 1


def test_a_device_that_is_missing_is_refused_before_anything_is_written(models, tmp_path, run_command):
    words = [*models, "limit=1", f"run_folder={tmp_path / 'run'}", "device=cuda"]
    code, _, err = run_command(eval_door, *words)
    assert code == 2 and "this machine has no CUDA device" in err and not (tmp_path / "run").exists()


def test_cards_are_those_that_are_visible(monkeypatch, run_command, models, tmp_path):
    monkeypatch.setattr("unmask.evaluation.cards.check_device", lambda device: device)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert cards_of("all", "xpu") == [{"ZE_AFFINITY_MASK": "0"}, {"ZE_AFFINITY_MASK": "1"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    assert cards_of("all", "cuda") == [{"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "GPU-7"}]
    assert cards_of("1", "cuda") == [{"CUDA_VISIBLE_DEVICES": "5"}]
    refused = {
        ("gpus=3", "device=cuda"): "from 1 to the 2 cards",
        ("gpus=0", "device=cuda"): "from 1 to the 2 cards",
        ("gpus=2", "device=cuda:1"): "not cuda:1",
        ("gpus=2", "device=cpu"): "not cpu",
        ("gpus=2", "shard=1/2", "device=cuda"): "shard=: gpus= gives a shard",
    }
    for words, message in refused.items():
        code, _, err = run_command(eval_door, *words, *models, f"run_folder={tmp_path / 'run'}")
        assert code == 2 and message in err and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_of_torchrun_are_shards_and_the_first_one_prints(models, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

    def run(*words):
        done = subprocess.run([*torchrun, *words], cwd=ROOT, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    words = [*models, "limit=3", "decoder=leftright", f"run_folder={tmp_path / 'run'}", "warm_up=0"]
    printed = [line for line in run("eval.py", *words).splitlines() if line.startswith("{")]
    assert [json.loads(line)["n"] for line in printed] == [3]
    shards = sorted((tmp_path / "run.shards").iterdir())
    assert [len((shard / "samples.jsonl").read_text().splitlines()) for shard in shards] == [2, 1]


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
