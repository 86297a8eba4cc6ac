"""Random models of two layers in the tiny family's layouts, with its tokenizer: the real path in
milliseconds."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import dream  # noqa: F401
from unmask.paths import ROOT
from unmask.tasks import problems

SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "initializer_range": 0.5,
}
FEW = 40  # of 1,000 problems


@pytest.fixture(autouse=True)
def few_problems(request, monkeypatch):
    """Random models choose among the first problems of a split: an evaluation reads all that it has."""
    if "models" in request.fixturenames and "every_problem" not in request.fixturenames:
        every = problems.held_out
        monkeypatch.setattr(problems, "held_out", lambda task, split: every(task, split)[:FEW])


@pytest.fixture
def every_problem():
    """For tests in which it matters which documents a limit draws."""


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Overrides that put random models where eval.py would take the trained ones."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "checkpoints" / "tiny_qwen_large")
    for name, layout in {"tiny_dream": "Dream", "tiny_qwen": "qwen2"}.items():
        torch.manual_seed(len(name))
        special = {
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
        }
        if layout == "Dream":
            special["mask_token_id"] = tokenizer.mask_token_id
        config = AutoConfig.for_model(layout, **SHAPE, **special)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return [
        f"model.path={folder / 'tiny_dream'}",
        f"auxiliary.path={folder / 'tiny_qwen'}",
        "task.max_new_tokens=24",
        "threads=1",
    ]


@pytest.fixture
def evaluate(models, tmp_path):
    """evaluate("limit=3", ...) -> Evaluation, in a fresh output folder unless one is given."""
    from unmask.evaluation.evaluation import Evaluation

    def build(*overrides):
        folder = (
            [] if any(o.startswith("run_folder=") for o in overrides) else [f"run_folder={tmp_path / 'run'}"]
        )
        return Evaluation.of(*models, *folder, "warm_up=2", *overrides)

    return build
