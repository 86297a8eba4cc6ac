"""Which decoders watch a training, and what they count."""

import pytest

from unmask.configuration.composition import composed
from unmask.decoding import Generation
from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.leftright import LeftRight
from unmask.decoding.unmasking import Unmasking
from unmask.evaluation.evaluation import Evaluation
from unmask.records.stats import wilson
from unmask.tasks import problems
from unmask.training.objectives import MaskedDiffusion
from unmask.training.validation import Validation, decoders

DIFFUSION, CAUSAL = {"student": "diffusion"}, {"student": "causal"}


def test_the_last_number_of_the_answer_counts(tokenizer, fresh, monkeypatch):
    texts = ["so 4 + 3 = 7\n#### 7", "#### 8", "no number", "7 then 9"]
    found = [problems.Problem(f"q{i}", "", answer) for i, answer in enumerate(["7", "7", "7", "9"])]
    monkeypatch.setattr(problems, "held_out", lambda task, split: found if split == "validation" else None)
    answers = []
    for text in texts:
        ids = tokenizer.encode(text)
        answers.append(Generation(ids, list(range(len(ids))), len(ids), "stop", {"denoiser": len(ids)}, {}))
    monkeypatch.setattr(LeftRight, "decode", lambda self, *args: answers)
    objective = MaskedDiffusion({"student": fresh("Dream")})
    measured = Validation(tokenizer, 4, 8, 1)(objective)
    low, high = wilson(2, 4)[1:]
    assert measured == {
        "n": 4,
        "accuracy": 0.5,
        "low_accuracy": low,
        "high_accuracy": high,
        "tokens_per_step": 1.0,
    }
    assert objective.student.training


def test_the_prompts_are_those_of_an_evaluation_of_the_validation_split(tokenizer, fresh, monkeypatch):
    given = []

    def decode(self, models, prompts, *args):
        given.extend(prompts)
        return [Generation([5], [0], 0, "stop", {"denoiser": 1}, {}) for _ in prompts]

    monkeypatch.setattr(LeftRight, "decode", decode)
    Validation(tokenizer, 20, 8, 1)(MaskedDiffusion({"student": fresh("Dream")}))
    cfg = ["model=tiny_dream", "task.split=validation", "limit=20", "decoder=leftright", "threads=1"]
    cfg.append("task.subset_seed=null")  # training watches the first ones
    requests = Evaluation(composed("eval", cfg)).requests
    assert [tokenizer.decode(ids) for ids in given] == [request.args[0] for request in requests]


def test_every_decoder_answers_on_the_student(tokenizer, fresh):
    watched = decoders(["leftright", "confidence steps=2", "random steps=1"], DIFFUSION, 4, "tiny_dream")
    objective = MaskedDiffusion({"student": fresh("Dream")})
    measured = Validation(tokenizer, 2, 4, 1, watched)(objective)
    columns = ["accuracy", "accuracy_confidence_steps=2", "accuracy_random_steps=1"]
    shares = [f"{end}{column}" for column in columns for end in ("", "low_", "high_")]
    assert list(measured) == ["n", *shares, *(c.replace("accuracy", "tokens_per_step") for c in columns)]
    one, two, all_at_once = [v for c, v in measured.items() if c.startswith("tokens")]
    assert 0 < one <= 1 < two <= 2 and all_at_once <= 4


def test_decoders_are_those_of_eval_with_the_settings_of_the_model():
    (first, second) = decoders(
        ["confidence", "leftright tokens_per_step=4"], DIFFUSION, 96, "tiny_dream"
    ).values()
    assert isinstance(first, Unmasking) and first.quota == "dream"  # of eval_config/model/tiny_dream.yaml
    assert second == LeftRight(tokens_per_step=4)
    (unknown,) = decoders(["confidence"], DIFFUSION, 96, "a_model_of_mine").values()
    assert isinstance(unknown, Unmasking)


def test_one_token_a_step_is_the_default():
    assert decoders(None, DIFFUSION, 96, "x") == {"accuracy": LeftRight()}
    assert decoders(None, CAUSAL, 96, "x") == {"accuracy": Autoregressive()}


@pytest.mark.parametrize(
    "settings, roles, message",
    [
        (["nope"], DIFFUSION, "'nope' is no decoder of eval.py"),
        (["leftright steps=1"], DIFFUSION, "'leftright steps=1'"),
        (["confidence steps=0"], DIFFUSION, "steps=0"),
        (["confidence block_length=7"], DIFFUSION, "block_length=7 does not divide"),
        (["autoregressive"], DIFFUSION, "needs a causal model as target"),
        (["leftright"], CAUSAL, "needs a diffusion model as denoiser"),
        (["apd"], DIFFUSION, "needs a causal model as auxiliary"),
        ([], DIFFUSION, "is empty"),
        (["leftright", "confidence", "confidence"], DIFFUSION, "there twice"),
        ([""], DIFFUSION, "no decoder"),
        (None, {"student": "drafter", "target": "causal"}, "validation_problems=0"),
    ],
)
def test_decoders_that_cannot_watch_are_refused(settings, roles, message):
    with pytest.raises(ValueError, match=message):
        decoders(settings, roles, 96, "tiny_dream")
