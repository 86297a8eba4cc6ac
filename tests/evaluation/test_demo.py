"""demo.py without a terminal: plain text, the answer that eval.py would get, a picture when asked."""

import pytest

import demo
from unmask.tasks import prepare  # noqa: F401  (lm-eval's first import is slow: not inside a test)


@pytest.fixture
def run_demo(run_command, models):
    return lambda *arguments: run_command(demo, *models, *arguments)


def test_plain_output_is_the_answer_with_its_cost(run_demo, evaluate, tmp_path):
    code, out, err = run_demo("compare=true", "document=1", f"save={tmp_path / 'fig1.png'}")
    assert code == 0, err
    assert "\x1b" not in out and "apd R=0.7" in out and "leftright K=1" in out
    assert (tmp_path / "fig1.png").exists()
    evaluation = evaluate("limit=2", "decoder=leftright")
    (prompt,) = evaluation.lm.prompts(evaluation.requests[1:])
    generation = evaluation.decoder.decode(evaluation.lm.models, [prompt], 24, evaluation.stop, [0])[0]
    answer = evaluation.model.tokenizer.decode(generation.ids[: generation.useful])
    assert (
        answer.split()
        == out.split("leftright K=1\n")[1].split("\n" + str(generation.useful) + " tokens in")[0].split()
    )
    assert f"{generation.forwards['denoiser']} denoiser forwards" in out


def test_two_models_side_by_side(run_command):
    code, out, err = run_command(
        demo, 'compare="model=tiny_qwen_large decoder=autoregressive"', "task.budget=24", "threads=1"
    )
    assert code == 0, err
    assert "apd R=0.7 on tiny_dream" in out and "autoregressive on tiny_qwen_large" in out
    assert "autoregressive forwards" in out


def test_another_prompt_and_another_order(run_demo):
    code, out, err = run_demo("prompt=How many?", "decoder=confidence", "decoder.steps=8")
    assert code == 0, err
    assert out.startswith("How many?") and "8 denoiser forwards" in out


def test_a_document_that_is_not_there(run_demo):
    code, _, err = run_demo("document=5000")
    assert code == 2 and "document=5000 must be from 0 to" in err
