"""One loop: exact resume, objectives that learn what they say, a stream that is a function of its
position."""

import json
import runpy
import signal
import subprocess
import sys
from itertools import pairwise

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import dream  # noqa: F401
from unmask.config import ROOT
from unmask.decoding import Generation
from unmask.decoding.leftright import LeftRight
from unmask.tasks import problems
from unmask.training.data import Stream
from unmask.training.loop import Schedule, Trainer
from unmask.training.muon import orthogonalise
from unmask.training.tokenizer import build
from unmask.training.validation import Validation

SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "max_position_embeddings": 512,
    "bos_token_id": None,
}
MIXTURE = {"gsm_symbolic": 0.5, "chain_sum": 0.2, "drill": 0.3}


def model(tokenizer, layout="qwen2", **fields):
    torch.manual_seed(0)
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    if layout == "Dream":
        special["mask_token_id"] = tokenizer.mask_token_id
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(layout, **SHAPE, **special, **fields))


def trainer(tokenizer, folder, layout="qwen2", objective="autoregressive", tokens=4000, **kwargs):
    stream = Stream(tokenizer, MIXTURE, batch_tokens=600, final_mixture={"gsm_symbolic": 1.0})
    return Trainer(model(tokenizer, layout), stream, objective, folder, tokens, Schedule(0.01), **kwargs)


@pytest.mark.parametrize("layout, objective", [("qwen2", "autoregressive"), ("Dream", "masked_diffusion")])
def test_resumed_training_is_the_uninterrupted_one(tokenizer, tmp_path, layout, objective):
    straight = trainer(tokenizer, tmp_path / "a", layout, objective)
    losses = [straight.step() for _ in range(6)]
    first = trainer(tokenizer, tmp_path / "b", layout, objective)
    again = [first.step() for _ in range(3)]
    first.save()
    second = trainer(tokenizer, tmp_path / "b", layout, objective)
    assert second.resume()
    again += [second.step() for _ in range(3)]
    assert again == losses
    assert second.seen == straight.seen
    for a, b in zip(straight.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_state_of_other_settings_is_refused(tokenizer, tmp_path):
    trainer(tokenizer, tmp_path, settings={"lr": 1}).save()
    with pytest.raises(ValueError, match="lr"):
        trainer(tokenizer, tmp_path, settings={"lr": 2}).resume()


def test_run_ends_at_the_token_budget_and_writes_the_curve(tokenizer, tmp_path):
    t = trainer(tokenizer, tmp_path, tokens=2000)
    t.run(log_every=1)
    assert t.seen >= 2000 and t.steps < 8
    assert (tmp_path / "curve.csv").read_text().startswith("step,tokens,seconds,loss,lr,accuracy")


def test_validation_is_measured_when_due_and_does_not_change_the_training(tokenizer, tmp_path):
    losses = []
    for validation in (None, Validation(tokenizer, count=3, budget=4, every=1500)):
        t = trainer(
            tokenizer, tmp_path / str(validation is None), "Dream", "masked_diffusion", validation=validation
        )
        t.run(log_every=1)
        losses.append([row["loss"] for row in t.curve])
    assert losses[0] == losses[1]
    measured = [row["accuracy"] is not None for row in t.curve]
    before = [0, *(row["tokens"] for row in t.curve)]
    due = [b // 1500 > a // 1500 for a, b in pairwise(before)]
    assert measured[:-1] == due[:-1] and measured[-1] and not all(measured)


def test_validation_scores_the_last_number_of_the_answer(tokenizer, monkeypatch):
    texts = ["so 4 + 3 = 7\n#### 7", "#### 8", "no number", "7 then 9"]
    found = [problems.Problem(f"q{i}", "", answer) for i, answer in enumerate(["7", "7", "7", "9"])]
    monkeypatch.setattr(problems, "held_out", lambda task, split: found if split == "validation" else None)
    answers = [Generation(tokenizer.encode(t), len(tokenizer.encode(t)), "stop", [], {}, {}) for t in texts]
    monkeypatch.setattr(LeftRight, "decode", lambda self, *args: answers)
    assert Validation(tokenizer, 4, 8, 1)(model(tokenizer, "Dream")) == 0.5


def test_two_processes_compute_what_one_does_with_twice_the_batches(tmp_path):
    """torchrun, gloo, two processes on a CPU: the same losses and weights as gradient accumulation on one."""
    shape = {"d_model": 16, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "mlp_hidden_size": 32}
    shared = ["recipe=tiny_llada", "tokens=6000", "batch_tokens=500", "threads=1", "validation_problems=0"]
    shared += [f"architecture.{k}={v}" for k, v in shape.items()]
    commands = {
        "one": [sys.executable, "train.py", "accumulate=4"],
        "two": [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            "train.py",
            "accumulate=2",
        ],
    }
    states = {}
    for name, command in commands.items():
        folders = [f"folder={tmp_path / name}", f"output={tmp_path / name / 'out'}"]
        done = subprocess.run([*command, *shared, *folders], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        states[name] = torch.load(tmp_path / name / "state.pt", weights_only=False)
    one, two = states["one"], states["two"]
    assert one["steps"] == two["steps"] > 2 and one["seen"] == two["seen"]
    for name, weights in one["model"].items():
        assert torch.allclose(weights, two["model"][name], atol=1e-5), name


def test_schedule():
    s = Schedule(peak=1.0, warmup=0.1, decay=0.5)
    assert [round(s(p), 3) for p in (0, 0.05, 0.1, 0.4, 0.75, 1)] == [0, 0.5, 1, 1, 0.5, 0]


def test_answers_are_what_is_asked_for(tokenizer):
    stream = Stream(tokenizer, {"gsm_symbolic": 1.0}, batch_tokens=2000)
    for _ in range(3):
        batch = stream.next()
        assert batch.ids.shape == batch.answer.shape and batch.tokens <= 2000
        for ids, answer in zip(batch.ids, batch.answer, strict=True):
            text = tokenizer.decode(ids[answer])
            assert "#### " in text and text.endswith("<|im_end|>")
            assert tokenizer.decode(ids[~answer]).startswith("<|im_start|>user\n")


def test_drills_ask_for_results_only(tokenizer):
    batch = Stream(tokenizer, {"drill": 1.0}, batch_tokens=500).next()
    for ids, answer in zip(batch.ids, batch.answer, strict=True):
        assert "=" not in tokenizer.decode(ids[answer]) and "=" in tokenizer.decode(ids[~answer])


def test_answers_are_followed_by_silence_up_to_the_canvas(tokenizer):
    stream = Stream(tokenizer, {"gsm_symbolic": 0.7, "drill": 0.3}, batch_tokens=3000, canvas=96)
    lengths = []
    for _ in range(20):
        batch = stream.next()
        assert (batch.ids[batch.silence] == tokenizer.eos_token_id).all()
        assert not (batch.silence & batch.answer).any()
        for answer, silence in zip(batch.answer, batch.silence, strict=True):
            if silence.any():
                asked = (answer | silence).nonzero()[:, 0]
                assert asked.tolist() == list(
                    range(asked[0], batch.ids.size(1))
                )  # one stretch, up to the end
                lengths.append(len(asked))
    assert sum(n >= 96 for n in lengths) > 0.4 * len(lengths)
    assert sum(n < 90 for n in lengths) > 0.1 * len(lengths)


def test_mixture_moves_with_progress(tokenizer):
    def drills(progress):
        stream = Stream(
            tokenizer, {"gsm_symbolic": 0.1, "drill": 0.9}, 2000, final_mixture={"gsm_symbolic": 1.0}
        )
        rows = [ids for _ in range(20) for ids in stream.next(progress).ids]
        return sum("user" not in tokenizer.decode(ids) for ids in rows) / len(rows)

    assert drills(0.0) > 0.7 and drills(1.0) == 0


def test_tokenizer_is_reproduced_from_nothing(tokenizer):
    assert build().get_vocab() == tokenizer.get_vocab()


def test_digits_are_single_and_spaces_stay_out_of_numbers(tokenizer):
    assert [tokenizer.decode([i]) for i in tokenizer.encode("a = 127")] == ["a", " =", " ", "1", "2", "7"]


def test_orthogonalise_makes_singular_values_one():
    x = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(x, steps=8))
    assert values.min() > 0.6 and values.max() < 1.3
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    assert torch.allclose((left @ right * orthogonalise(x)).sum((1, 2)) / 8, torch.ones(3), atol=0.3)


def test_train_command_makes_a_folder_that_loads_and_resumes(tmp_path, monkeypatch, capsys):
    arguments = [
        "recipe=tiny_qwen",
        "tokens=2000",
        "batch_tokens=600",
        "threads=1",
        "validation_problems=2",
        "budget=4",
        "architecture.hidden_size=16",
        "architecture.intermediate_size=32",
        f"folder={tmp_path / 'state'}",
        f"output={tmp_path / 'model'}",
    ]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    for expected in ("from 0 of", "resumed at"):
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        assert expected in capsys.readouterr().out
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert loaded.config.hidden_size == 16 and (tmp_path / "model" / "learning_curve.png").exists()
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert "lm_head.weight" not in weights  # tied: one tensor
    story = json.loads((tmp_path / "model" / "training.json").read_text())
    assert story["tokens"] >= 2000 and [s["from_step"] for s in story["sittings"]] == [0]
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template

    # A second recipe goes on from there, twice the same: the story and the curve tell of both.
    new = [f"folder={tmp_path / 'more'}", f"init_from={tmp_path / 'model'}", "seed=1"]
    more = [a for a in arguments if "folder" not in a] + new
    monkeypatch.setattr(sys, "argv", ["train.py", *more])
    for _ in range(2):
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        told = json.loads((tmp_path / "model" / "training.json").read_text())
        assert told["earlier"] == story and told["recipe"] == "tiny_qwen"
        curve = pd.read_csv(tmp_path / "model" / "learning_curve.csv")
        assert (
            curve.tokens.is_monotonic_increasing and curve.tokens.iloc[-1] == story["tokens"] + told["tokens"]
        )


def test_train_refuses_a_missing_parent(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "recipe=tiny_dream", "init_from=nowhere/parent"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    assert stop.value.code == 2 and "recipe=parent" in capsys.readouterr().err


@pytest.mark.parametrize(
    "override, message",
    [
        ("objective_options={blocks: 1}", "blocks"),
        ("dtype=float16", "bfloat16"),
        ("validation_problems=-1", "validation_problems"),
        ("validation_tokens=0", "validation_tokens"),
        ("tokens=0", "tokens"),
    ],
)
def test_train_refuses_bad_settings(override, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "recipe=tiny_qwen", override])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_stopped_training_saves_goes_on_exactly_and_gives_the_signals_back(tokenizer, tmp_path):
    straight = trainer(tokenizer, tmp_path / "a")
    straight.run(log_every=3)
    stopped, steps = trainer(tokenizer, tmp_path / "b"), []
    real = stopped.step

    def step():
        steps.append(real())
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return steps[-1]

    stopped.step = step
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="the same command"):
        stopped.run(log_every=3)
    assert len(steps) == 2 and signal.getsignal(signal.SIGINT) is handler
    again = trainer(tokenizer, tmp_path / "b")
    assert again.resume()
    again.run(log_every=3)
    keys = ("step", "tokens", "loss", "lr")
    assert [[row[k] for k in keys] for row in again.curve] == [
        [row[k] for k in keys] for row in straight.curve
    ]
    assert [s["from_step"] for s in again.sittings] == [0, 2]
