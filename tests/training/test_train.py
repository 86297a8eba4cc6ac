"""The command: what it makes, what it refuses."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import train
from unmask.paths import ROOT
from unmask.training import checking
from unmask.training import tokenizer as shared_tokenizer
from unmask.training.export import curve_of, earlier
from unmask.training.models import build_config

SMALL = ["architecture.hidden_size=16", "architecture.intermediate_size=32", "batch_tokens=600", "threads=1"]


@pytest.mark.slow
def test_tokenizer_is_reproduced_from_scratch(tokenizer):
    built = shared_tokenizer.build()
    assert built.get_vocab() == tokenizer.get_vocab()
    text = "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n"
    assert built.encode(text) == tokenizer.encode(text) and built.chat_template == tokenizer.chat_template


def test_digits_are_single_and_spaces_stay_out_of_numbers(tokenizer):
    assert [tokenizer.decode([i]) for i in tokenizer.encode("a = 127")] == ["a", " =", " ", "1", "2", "7"]


@pytest.mark.parametrize("layout", ["qwen2", "Dream", "llada"])
def test_special_ids_are_the_tokenizers_and_not_the_published_models(layout, tokenizer):
    config = build_config({"model_type": layout}, tokenizer)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(config, name) == getattr(tokenizer, name)


def test_train_command_makes_a_folder_that_loads_and_resumes(
    tmp_path, monkeypatch, run_command, small_chunks, tokenizer
):
    monkeypatch.setattr(shared_tokenizer, "build", lambda: tokenizer)
    shared = ["recipe=tiny_qwen", "tokens=1500", "validation_problems=2", "max_new_tokens=4", *SMALL]
    state, output = f"folder={tmp_path / 'state'}", f"output={tmp_path / 'model'}"
    for expected in ("from 0 of 1,500", "resumed at"):
        code, out, err = run_command(train, *shared, state, output)
        assert code == 0 and expected in out, err
    assert list((tmp_path / "model").glob(".partial*")) == []
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert loaded.config.hidden_size == 16 and (tmp_path / "model" / "learning_curve.png").exists()
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert "lm_head.weight" not in weights  # tied: one tensor
    files = {file.name for file in (tmp_path / "model").iterdir()}
    assert not files & {"generation_config.json", "chat_template.jinja", "learning_curve.csv"}
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert record["tokens"] >= 1500 and [s["from_step"] for s in record["sessions"]] == [0]
    assert record["recipe"] == "tiny_qwen" and record["settings"]["objective"] == "autoregressive"
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template

    # A second recipe goes on from there, twice the same: training.json and the curve tell of both.
    more = [f"folder={tmp_path / 'more'}", output, f"init_from={tmp_path / 'model'}", "seed=1"]
    for _ in range(2):
        code, _, err = run_command(train, *shared, *more)
        assert code == 0, err
        told = json.loads((tmp_path / "model" / "training.json").read_text())
        assert told["earlier"] == {key: value for key, value in record.items() if key != "curve"}
        curve = curve_of(told)
        assert curve.tokens.is_monotonic_increasing
        assert curve.tokens.iloc[-1] == record["tokens"] + told["tokens"]


def test_a_parent_without_its_curve_is_refused_before_the_training(tmp_path):
    record = {"settings": {"name": "tiny_qwen"}}
    (tmp_path / "training.json").write_text(json.dumps(record))
    assert earlier(tmp_path, "another") is None
    with pytest.raises(ValueError, match="training.json has no curve"):
        earlier(tmp_path, "tiny_qwen")
    (tmp_path / "training.json").write_text(json.dumps(record | {"curve": ["step", "1"]}))
    assert curve_of(earlier(tmp_path, "tiny_qwen")).step.tolist() == [1]


def test_help_says_what_the_settings_mean(run_command):
    code, out, _ = run_command(train, "--help")
    assert code in (0, None)
    for words in (
        "tiny_qwen_large",
        "Settings of this recipe",
        "objective_options",
        "torchrun",
        "run:FOLDER",
    ):
        assert words in out


@pytest.mark.parametrize(
    "override, message",
    [
        ("init_from=nowhere/parent", "recipe=parent"),
        ("objective=autoregressive", "has no blocks, left_to_right"),
        ("architecture.model_type=qwen2", "needs a diffusion model"),
        ("architecture.model_type=qwem", "qwem"),
        ("+architecture.hidden=8", "a Dream model has no hidden"),
        ("architecture.hidden_size=wide", "architecture"),
        ("architecture.hidden_size=96", "init_from=checkpoints/tiny_qwen_large"),
        ("device=tpu", "device"),
        ("validation_decoders=[apd]", "auxiliary"),
        ("+mixture={run\\:nowhere: 1}", "run:nowhere"),
        ("tokens=many", "tokens"),
        ("recipe=mine", "mine"),
        ("colour=red", "colour"),
    ],
)
def test_train_refuses_before_it_writes(override, message, run_command, tmp_path):
    folders = [f"{key}={tmp_path / key}" for key in ("folder", "output")]
    code, _, err = run_command(train, "recipe=tiny_dream", *folders, override)
    assert code == 2 and message in err
    assert not list(tmp_path.iterdir())


# --- settings ---


@pytest.fixture(scope="module")
def settings():
    """The composed settings of recipe=tiny_dream."""
    with initialize_config_dir(str(ROOT / "eval_config"), version_base=None):
        return compose("train", ["recipe=tiny_dream", "folder=runs/x"])


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("name", "???", "name"),
        ("objective", "diffusion", "masked_diffusion"),
        ("objective_options", {"block": 1}, "has no block;"),
        ("objective_options", {"blocks": "much"}, "objective_options.blocks"),
        ("dtype", "float16", "bfloat16"),
        ("validation_problems", -1, "validation_problems"),
        ("validation_tokens", 0, "validation_tokens"),
        ("tokens", 0, "tokens"),
        ("tokens", "???", "tokens"),
        ("max_new_tokens", 0, "max_new_tokens"),
        ("canvas", 0, "canvas"),
        ("lr", 0, "lr"),
        ("lr", float("nan"), "lr"),
        ("warmup", 2, "warmup"),
        ("decay", -0.1, "decay"),
        ("weight_decay", -1, "weight_decay"),
        ("checkpoint_minutes", 0, "checkpoint_minutes"),
        ("mixture", {"drill": -1}, "share of drill"),
        ("mixture", {"gsm_symbolic": 0, "chain_sum": 0, "drill": 0}, "no source has a share"),
        ("mixture", {"gsm8k": 1}, "gsm8k"),
        ("final_mixture", {"gsm8k": 1}, "final_mixture|gsm8k"),
        ("frozen", {"teacher": "x"}, "no role teacher; it has none"),
        ("lora", {"rank": 3}, "lora.*rank"),
        ("folder", "README.md", "README.md"),
        ("output", "", "output=''"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings, key, value, message):
    changed = copy.deepcopy(settings)
    with open_dict(changed):
        OmegaConf.update(changed, key, value, merge=True)
    with pytest.raises(ValueError, match=message):
        checking.read(changed)


def test_every_recipe_is_in_order():
    for file in sorted((ROOT / "eval_config" / "recipe").glob("*.yaml")):
        with initialize_config_dir(str(ROOT / "eval_config"), version_base=None):
            cfg = checking.read(compose("train", [f"recipe={file.stem}", "folder=runs/x"]))
        assert file.stem.startswith(cfg.name)


def test_a_model_without_architecture_and_parent_is_refused(run_command):
    code, _, err = run_command(train, "recipe=tiny_qwen", "architecture=null")
    assert code == 2 and "architecture and init_from" in err


def test_a_damaged_parent_is_refused(run_command, parent, tmp_path):
    (tmp_path / "config.json").write_text((parent / "config.json").read_text())
    (tmp_path / "model.safetensors").write_text("no weights")
    code, _, err = run_command(train, "recipe=tiny_dream", f"init_from={tmp_path}")
    assert code == 2 and f"init_from={tmp_path}: cannot be loaded" in err


def test_the_settings_are_read_without_torch():
    """`train.py --help` reads them, and is to be quick."""
    code = "import sys, unmask.training.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
