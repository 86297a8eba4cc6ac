"""Malformed command lines of train.py: one message, exit code 2, nothing written, nothing built."""

import random

import pytest

import train
from unmask.training import run

RECIPES = ["tiny_qwen", "tiny_dream", "tiny_d2f_dream", "tiny_dflash", "tiny_dparallel_llada"]
LONG = "x" * 5000
JUNK = ["[1,2]", "{a: 1}", "{a: {b: 1}}", "nope", "''", '"\\n"', LONG]
NUMBERS = [*JUNK, "null", "-1", "nan", "-inf", "1e400", "true"]
COUNTS = ("batch_tokens", "accumulate", "tokens", "threads", "max_new_tokens", "validation_tokens")
SHARES = ("lr", "warmup", "decay", "weight_decay", "checkpoint_minutes")
BAD = {
    **{key: [*NUMBERS, "0", "1.5"] for key in COUNTS},
    **{key: NUMBERS[:-1] for key in SHARES},
    "validation_problems": [*NUMBERS, "1.5", "1" + "0" * 30],
    "canvas": [*JUNK, "0", "-3", "2.5"],
    "seed": [*JUNK, "null", "nan", "1.5"],
    "objective": [*JUNK, "null", "1"],
    "objective_options": ["3", "[1]", "{nope: 1}", "nope"],
    "++objective_options.block_length": ["[1]", "many", "{a: 1}", "0", "-8"],
    "++objective_options.nope": ["1", "null", "[2]"],
    "architecture": ["3", "[1]", "nope"],
    "init_from": ["nowhere", "''", "[1]", "{a: 1}", "3", LONG, "model:tiny_dream", "README.md"],
    "++frozen": ["3", "[1]", "{nope: x}", "nope"],
    "++frozen.teacher": ["[1]", "nowhere", "model:nope", "model:../task/gsm8k", LONG],
    "lora": ["3", "[1]", "{rank: 3}", "{r: 0}", "{r: []}", "{target_modules: []}", "{dropout: 2}", "nope"],
    "++mixture": ["3", "[1]", "nope", "null", "{nope: 1}", "{gsm_symbolic: many}", "{gsm_symbolic: nan}"],
    "++mixture.drill": ["-1", "inf", "nan", "many", "[1]", "null", "{a: 1}"],
    "++final_mixture": ["3", "[1]", "nope", "{nope: 1}", "{gsm_symbolic: -1}"],
    "validation_decoders": ["3", "[]", "[nope]", "[[1]]", "nope", "[null]", "[apd]", "{a: 1}"],
    "device": ["tpu", "[1]", "''", "null", "cuda:999", LONG],
    "dtype": ["float16", "int8", "[1]", "''", "null"],
    "folder": ["README.md", "''", "[1]", "{a: 1}", LONG, "README.md/x"],
    "output": ["README.md", "''", "[1]", "null", LONG, "README.md/x"],
    "name": ["???", "null", "[1]", "''", "../../x", "a/b", LONG],
    "nope": ["1", "null"],
    "recipe": ["nope", "null", "''", LONG, "../eval"],
}


def malformed(count):
    rng = random.Random(0)
    every = [(key, value) for key, values in BAD.items() for value in values]
    return [(rng.choice(RECIPES), *pair) for pair in rng.sample(every, min(count, len(every)))]


@pytest.mark.parametrize("recipe, key, value", malformed(300), ids=lambda v: v[:30])
def test_a_malformed_setting_is_one_message_and_nothing_else(
    recipe, key, value, run_command, tmp_path, monkeypatch
):
    built = []
    monkeypatch.setattr(run, "build_models", lambda *args: built.append("models"))
    monkeypatch.setattr(run, "build_tokenizer", lambda *args: built.append("tokenizer"))
    folders = [f"{name}={tmp_path / name}" for name in ("folder", "output")]
    code, out, err = run_command(train, f"recipe={recipe}", *folders, f"{key}={value}")
    assert code == 2 and err.startswith("error: ") and "Traceback" not in err and not out, err
    assert not built and not list(tmp_path.iterdir())


def test_a_setting_that_nothing_reads_is_refused(run_command, tmp_path):
    folders = [f"{name}={tmp_path / name}" for name in ("folder", "output")]
    words = ["recipe=tiny_dream", "validation_problems=0", "max_new_tokens=64"]
    code, _, err = run_command(train, *words, *folders)
    assert code == 2 and "max_new_tokens=64: has no effect where validation_problems=0" in err, err


def test_a_frozen_model_is_a_choice_and_no_path(run_command, tmp_path):
    folders = [f"{name}={tmp_path / name}" for name in ("folder", "output")]
    words = ["recipe=tiny_d2f_dream", "++frozen.teacher=model:../task/gsm8k"]
    code, _, err = run_command(train, *words, *folders)
    assert code == 2 and "frozen.teacher=model:../task/gsm8k: is no name of a model" in err, err


@pytest.mark.parametrize("width", ["-1", "0", "1000000000000", "wide", "[1]", "{a: 1}"])
def test_a_model_of_an_extreme_width_is_refused_before_it_is_allocated(width, run_command, tmp_path):
    folders = [f"{name}={tmp_path / name}" for name in ("folder", "output")]
    code, out, err = run_command(train, "recipe=tiny_dream", *folders, f"architecture.hidden_size={width}")
    assert code == 2 and err.startswith("error: architecture") and not out, err
    assert not list(tmp_path.iterdir())
