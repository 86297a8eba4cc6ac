"""Bad input: a message that names the key and says what to do, exit code 2, nothing loaded, nothing
written."""

import json
import runpy
import shutil
import sys

import pytest

from dream import DreamConfig
from unmask.paths import ROOT

CASES = {
    "a shard that is none": (["shard=5/4"], "shard=5/4: must be i/n"),
    "a shard in words": (["shard=first"], "shard=first"),
    "nothing to show": (["show=answers"], "show=answers: must be prompt"),
    "random model": (["auxiliary=random_causal"], "python bench.py model=random"),
    "batch size that is a word": (["batch_size=many"], "batch_size='many'"),
    "compiled batches of any size": (["compile=true", "batch_size=auto"], "give batch_size a number"),
    "an unknown key": (["decoder.mixture=1"], "mixture"),
    "an unknown key at the top": (["limmit=1"], "limmit"),
    "a number for a switch": (["trace=7"], "trace=7: trace must be true or false"),
    "end tokens that are lists": (["model.end_tokens=[[1]]"], "model.end_tokens="),
    "a file for an adapter": (["model.adapter=README.md"], "adapter=README.md: is no folder"),
    "a path that is too long": (["model.adapter=" + "x" * 5000], "is no folder and no name of a Hub"),
    "a beginning that is no template": (["task.gen_prefix='{{'"], "task.gen_prefix='{{': must be a template"),
    "a quota that its preset's limit is not for": (
        ["decoder=threshold", "decoder.quota=even"],
        "threshold goes with quota=threshold or dynamic or hierarchy or near_ties; with quota=even also set "
        "threshold=null",
    ),
    "no model at all": (["~model"], "model"),
    "no folder for the runs": (["results=''"], "results='': is no folder"),
    "a key that is added": (["++nope=1"], "nope: is no setting"),
    "a key that is added to a task": (["+task.nope=1"], "task.nope: is no setting"),
    "an arm where there are none": (["arm=one"], "defines no arms"),
    "arms that are none": (["+arms=3"], "arms=3"),
    "a schedule that there is not": (["model.schedule=nope"], "model.schedule='nope'"),
    "an unknown model": (["model=tiny_drem"], "tiny_dream"),
    "an unknown task": (["task=gsm9k"], "gsm8k"),
    "an unknown lm-eval task": (["task.name=gsm9k"], "gsm9k"),
    "R above 1": (["decoder.mixture_weight=1.5"], "mixture_weight"),
    "R below 0": (["decoder.mixture_weight=-0.1"], "mixture_weight"),
    "K below 1": (["decoder=leftright", "decoder.tokens_per_step=0"], "tokens_per_step"),
    "no K": (["decoder=leftright", "decoder.tokens_per_step=null"], "tokens_per_step"),
    "M below 1": (["decoder.max_lookahead=0"], "max_lookahead"),
    "W below 1": (["decoder.kv_window=0"], "kv_window"),
    "B below 1": (["decoder=confidence", "decoder.block_length=0"], "block_length"),
    "T below 1": (["decoder=entropy", "decoder.steps=0"], "steps"),
    "B that does not divide max_new_tokens": (
        ["decoder=confidence", "decoder.block_length=5"],
        "block_length=5",
    ),
    "B of a preset that does not divide": (
        ["decoder=threshold", "task.max_new_tokens=80"],
        "block_length=32",
    ),
    "a probability above 1": (["decoder=threshold", "decoder.threshold=1.1"], "threshold=1.1"),
    "a probability below 0": (["decoder=threshold", "decoder.threshold=-0.1"], "threshold=-0.1"),
    "more nats than the vocabulary has": (
        ["decoder=dparallel", "decoder.threshold=8"],
        "no entropy over 2048 tokens is above 7.62",
    ),
    "a bound below 0": (["decoder=entropy_bound", "decoder.bound=-1"], "bound=-1"),
    "a cache that there is not": (["decoder=factor", "decoder.cache=triple"], "cache='triple'"),
    "a block cache with a window": (
        ["decoder=threshold", "decoder.cache=dual", "+decoder.kv_window=8"],
        "kv_window",
    ),
    "a pipeline on a model that sees everything": (["decoder=d2f"], "model=tiny_d2f_dream"),
    "a share above 1": (
        ["decoder=d2f", "force=true", "decoder.block_add_threshold=1.5"],
        "block_add_threshold=1.5",
    ),
    "a confidence below 0": (
        ["decoder=d2f", "force=true", "decoder.skip_threshold=-0.5"],
        "skip_threshold=-0.5",
    ),
    "a fallback that there is not": (["decoder=d2f", "decoder.fallback=coin"], "fallback='coin'"),
    "more nats than there are": (
        ["decoder=multiblock", "decoder.entropy_max=8"],
        "no entropy over 2048 tokens is above 7.62",
    ),
    "attention that there is not": (["model.attention=sideways"], "attention='sideways'"),
    "a list for a model": (["model=[null]"], "model=[null]"),
    "a number for a class": (["decoder._target_=1"], "decoder"),
    "a class that is no decoder": (["decoder._target_=pathlib.Path"], "pathlib.Path"),
    "a number for stop strings": (["task.stop=3"], "task.stop=3"),
    "W = 0 on bool": (["decoder.kv_window=true"], "kv_window"),
    "a word for a weight": (["decoder.mixture_weight=much"], "mixture_weight"),
    "a warm-up below 0": (["warm_up=-1"], "warm_up"),
    "a drafter that is a list": (["drafter=[1]"], "drafter"),
    "a package that is not installed": (
        ["model=smollm2", "model.path=package:no_such_model", "decoder=autoregressive"],
        "needs the Python packages no_such_model",
    ),
    "dflash without a drafter": (["model=tiny_qwen_large", "decoder=dflash"], "drafter=tiny_dflash"),
    "a causal drafter for dflash": (
        ["model=tiny_qwen_large", "decoder=dflash", "drafter=tiny_qwen"],
        "needs a drafter model as drafter, and drafter=tiny_qwen is causal",
    ),
    "a word for a number": (["decoder=leftright", "decoder.tokens_per_step=many"], "tokens_per_step"),
    "apd without auxiliary": (["auxiliary=none"], "auxiliary=tiny_qwen"),
    "a causal decoder on a denoiser": (["decoder=autoregressive"], "tiny_qwen_large"),
    "a denoiser's decoder on a causal model": (["model=tiny_qwen", "decoder=apd"], "decoder=autoregressive"),
    "a metric that the task does not have": (["task.metric='exact_match,last'"], "flexible-extract"),
    "limit below 1": (["limit=0"], "limit"),
    "a prompt longer than the context": (["task.max_new_tokens=500"], "context"),
    "no such model folder": (["model.path=nowhere/at/all"], "nowhere/at/all"),
    "a model of the family that is not trained yet": (
        ["model.path=checkpoints/tiny_other"],
        "train.py recipe=tiny_other",
    ),
    "no such data file": (["task=gsm8k", "task.data=nowhere.jsonl"], "nowhere.jsonl"),
    "code without permission": (["task=humaneval"], "allow_code_execution"),
    "no such device": (["device=gpu7"], "device"),
    "no such dtype": (["dtype=float8"], "dtype"),
}


def run_eval(monkeypatch, *overrides) -> int:
    """eval.py as a command, in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["eval.py", *overrides])
    try:
        runpy.run_path(str(ROOT / "eval.py"), run_name="__main__")
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.fixture
def no_weights(monkeypatch):
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("weights were loaded")
    )


def test_a_mixture_of_experts_is_not_compiled(monkeypatch, capsys, models, no_weights):
    monkeypatch.setattr(DreamConfig, "num_experts", 8, raising=False)
    assert run_eval(monkeypatch, *models, "compile=true") == 2
    assert "compile=true: denoiser=tiny_dream is a mixture of experts" in capsys.readouterr().err


@pytest.mark.parametrize("case", CASES)
def test_refused_with_a_message(monkeypatch, capsys, tmp_path, models, no_weights, case):
    overrides, named = CASES[case]
    folder = tmp_path / "run"
    given = {o.partition("=")[0] for o in overrides}
    kept = [
        o
        for o in models
        if o.partition("=")[0] not in given and not ("auxiliary=none" in overrides and "aux" in o)
    ]
    assert run_eval(monkeypatch, *kept, f"run_folder={folder}", *overrides) == 2
    captured = capsys.readouterr()
    assert named in captured.err
    assert "Traceback" not in captured.err + captured.out
    assert not folder.exists()


def test_tokenizers_that_do_not_match_are_refused(monkeypatch, capsys, tmp_path, models, no_weights):
    """Two digits trade their ids: the same tokens, other numbers."""
    other = tmp_path / "other"
    shutil.copytree(next(o for o in models if o.startswith("auxiliary.path")).partition("=")[2], other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["1"], vocabulary["2"] = vocabulary["2"], vocabulary["1"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    overrides = [o for o in models if not o.startswith("auxiliary")]
    assert run_eval(monkeypatch, *overrides, f"auxiliary.path={other}", f"run_folder={tmp_path / 'run'}") == 2
    assert "disagree on 2 of 1,957 ids" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_output_folder_of_another_config_is_refused(monkeypatch, capsys, tmp_path, models):
    output = f"run_folder={tmp_path / 'run'}"
    assert run_eval(monkeypatch, *models, output, "limit=1") == 0
    assert run_eval(monkeypatch, *models, output, "limit=1", "seed=7") == 2
    assert "seed: 0 there, 7 here" in capsys.readouterr().err


def test_last_line_is_one_json_object_and_a_second_run_says_it_did_nothing(
    monkeypatch, capsys, tmp_path, models
):
    arguments = [*models, f"run_folder={tmp_path / 'run'}", "limit=2"]
    assert run_eval(monkeypatch, *arguments) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["n"] == 2 and first["decoded_now"] == 2
    wanted = {
        "run",
        "accuracy",
        "accuracy_interval",
        "useful_tokens",
        "forwards",
        "tokens_per_step",
        "tokens_per_second",
    }
    assert wanted <= first.keys()
    assert run_eval(monkeypatch, *arguments) == 0
    out = capsys.readouterr().out
    assert "nothing to decode" in out
    assert json.loads(out.splitlines()[-1]) == first | {"decoded_now": 0}
