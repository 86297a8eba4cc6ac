"""One loop: exact resume, objectives that learn what they say, a stream that is a function of its position."""

import runpy
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import dream  # noqa: F401
from config import ROOT
from training.data import Batch, Stream
from training.loop import Schedule, Trainer
from training.muon import orthogonalise
from training.objectives import autoregressive, masked_diffusion
from training.tokenizer import build

SHAPE = {"vocab_size": 2048, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
         "intermediate_size": 32, "max_position_embeddings": 512, "bos_token_id": None}  # fmt: skip
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
    assert (tmp_path / "curve.csv").read_text().startswith("step,tokens,seconds,loss,lr")


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
                assert asked.tolist() == list(range(asked[0], batch.ids.size(1)))  # one stretch, up to the end
                lengths.append(len(asked))
    assert sum(n >= 96 for n in lengths) > 0.4 * len(lengths)
    assert sum(n < 90 for n in lengths) > 0.1 * len(lengths)


def test_mixture_moves_with_progress(tokenizer):
    def drills(progress):
        stream = Stream(tokenizer, {"gsm_symbolic": 0.1, "drill": 0.9}, 2000, final_mixture={"gsm_symbolic": 1.0})
        rows = [ids for _ in range(20) for ids in stream.next(progress).ids]
        return sum("user" not in tokenizer.decode(ids) for ids in rows) / len(rows)

    assert drills(0.0) > 0.7 and drills(1.0) == 0


def test_tokenizer_is_reproduced_from_nothing(tokenizer):
    assert build().get_vocab() == tokenizer.get_vocab()


def test_digits_are_single_and_spaces_stay_out_of_numbers(tokenizer):
    assert [tokenizer.decode([i]) for i in tokenizer.encode("a = 127")] == ["a", " =", " ", "1", "2", "7"]


class Oracle(torch.nn.Module):
    """Logits that depend on nothing, and a record of what was asked."""

    def __init__(self, vocabulary=8, mask=7):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.config = type("Config", (), {"mask_token_id": mask})
        self.vocabulary = vocabulary

    def forward(self, noisy, logits_to_keep):
        self.noisy, self.kept = noisy, logits_to_keep
        logits = self.scale * torch.zeros(int(logits_to_keep.sum()), self.vocabulary)
        return type("Output", (), {"logits": logits})


def test_masked_diffusion_masks_answers_only_and_is_the_weighted_bound():
    ids = torch.arange(6).repeat(200, 1)
    answer = torch.tensor([False, False, True, True, False, False]).repeat(200, 1)
    silence = torch.tensor([False, False, False, False, True, True]).repeat(200, 1)
    oracle = Oracle()
    loss = masked_diffusion(oracle, Batch(ids, answer, silence), torch.Generator().manual_seed(0))
    masked = oracle.noisy == 7
    assert torch.equal(masked, oracle.kept)
    assert not masked[:, :2].any() and masked[:, 2:].any(0).all()
    # A uniform guess costs log V at every masked token; 1/t makes the expectation log V whatever t is.
    assert abs(loss.item() / torch.tensor(8.0).log().item() - 1) < 0.15
    shares = masked[:, 2:].float().mean(1)
    assert shares.min() < 0.3 and shares.max() > 0.9  # t runs over its whole range


def test_autoregressive_loss_counts_answers_only(tokenizer):
    m = model(tokenizer)
    ids = torch.randint(0, 2048, (2, 9))
    answer = torch.zeros(2, 9, dtype=torch.bool)
    answer[:, 5:] = True
    logits = m(ids).logits[:, 4:8].log_softmax(-1)
    expected = -logits.gather(-1, ids[:, 5:, None]).mean()
    loss = autoregressive(m, Batch(ids, answer, torch.zeros_like(answer)), None)
    assert torch.allclose(loss, expected, atol=1e-5)


def test_orthogonalise_makes_singular_values_one():
    x = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(x, steps=8))
    assert values.min() > 0.6 and values.max() < 1.3
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    assert torch.allclose((left @ right * orthogonalise(x)).sum((1, 2)) / 8, torch.ones(3), atol=0.3)


def test_train_command_makes_a_folder_that_loads_and_resumes(tmp_path, monkeypatch, capsys):
    arguments = [
        "recipe=tiny_qwen", "tokens=2000", "batch_tokens=600", "threads=1", "architecture.hidden_size=16",
        "architecture.intermediate_size=32", f"folder={tmp_path / 'state'}", f"output={tmp_path / 'model'}",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    for expected in ("from 0 of", "resumed at"):
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        assert expected in capsys.readouterr().out
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert loaded.config.hidden_size == 16 and (tmp_path / "model" / "learning_curve.png").exists()
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 200_000  # float16
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template


def test_train_refuses_a_missing_parent(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "recipe=tiny_dream", "init_from=nowhere/parent"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    assert stop.value.code == 2 and "recipe=parent" in capsys.readouterr().err
