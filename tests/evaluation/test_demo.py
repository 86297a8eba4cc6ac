"""demo.py without a terminal: plain text, the answer that eval.py would get, a picture when asked."""

import pytest

import demo
from unmask.demo import command, race
from unmask.tasks import prepare  # noqa: F401  (lm-eval's first import is slow: not inside a test)


@pytest.fixture
def run_demo(run_command, models, every_problem):
    return lambda *arguments: run_command(demo, *models, *arguments)


def test_plain_output_is_the_answer_with_its_cost(run_demo, evaluate, tmp_path):
    code, out, err = run_demo("compare=true", "document=1", f"save={tmp_path / 'fig1.png'}")
    assert code == 0, err
    assert "\x1b" not in out and "apd R=0.7" in out and "leftright K=1" in out
    assert (tmp_path / "fig1.png").exists()
    evaluation = evaluate("limit=2", "decoder=leftright")
    evaluation.score()
    recorded = evaluation.run.samples()[1]
    shown = out.split("leftright K=1\n")[1].split(f"\n{recorded['useful']} tokens in")[0]
    assert shown.split() == recorded["text"].split()
    assert f"{recorded['forwards']['denoiser']} denoiser forwards" in out


def test_the_demo_of_a_document_is_the_recorded_answer(run_demo, evaluate):
    """Also where it is drawn: the same seed for the same document."""
    sampled = ("decoder=leftright", "decoder.temperature=1.5", "seed=3")
    code, out, err = run_demo("document=1", *sampled)
    assert code == 0, err
    evaluation = evaluate("limit=2", *sampled)
    evaluation.score()
    assert f"\n{evaluation.run.samples()[1]['useful']} tokens in" in out
    assert (
        evaluation.run.samples()[1]["text"].split()
        == out.split("K=1\n")[1]
        .split("\n" + str(evaluation.run.samples()[1]["useful"]) + " tokens in")[0]
        .split()
    )


def test_two_models_side_by_side(run_command):
    code, out, err = run_command(
        demo, 'compare="model=tiny_qwen_large decoder=autoregressive"', "task.max_new_tokens=24", "threads=1"
    )
    assert code == 0, err
    assert "apd R=0.7 on tiny_dream" in out and "autoregressive on tiny_qwen_large" in out
    assert "target forwards" in out


def test_without_words_three_decoders_race(run_command, monkeypatch):
    monkeypatch.setattr(command, "RACE", (*command.RACE, "task.max_new_tokens=24", "threads=1"))
    code, out, err = run_command(demo)
    assert code == 0, err
    titles = [line for line in out.splitlines() if " on tiny_" in line and "steps" not in line]
    assert [title.split()[0] for title in titles] == ["leftright", "apd", "d2f"]
    assert out.count(" tokens a step, ") == 3


def test_a_race_in_slow_motion_keeps_its_order(monkeypatch):
    slept, order = [], []
    monkeypatch.setattr(race.time, "sleep", slept.append)

    def racer(name, seconds, steps):
        def run(wait):
            for _ in range(steps):
                order.append(name)
                wait(seconds)

        return run

    race.Race([racer("slow", 1.0, 2), racer("fast", 0.25, 4)], slow=3.0).run()
    assert order == ["slow", "fast", "fast", "fast", "fast", "slow"]
    assert sum(slept) == 2 * (2 * 1.0 + 4 * 0.25)


@pytest.mark.parametrize("slow", ["0.5", "0", "-1", "nan"])
def test_slow_motion_is_not_fast(run_demo, slow):
    code, _, err = run_demo(f"slow={slow}")
    assert code == 2 and "must be at least 1" in err


def test_another_prompt_and_another_order(run_demo):
    code, out, err = run_demo("prompt=How many?", "decoder=confidence", "decoder.steps=8")
    assert code == 0, err
    assert out.startswith("How many?") and "8 denoiser forwards" in out


def test_a_document_that_is_not_there(run_demo):
    code, _, err = run_demo("document=5000")
    assert code == 2 and "document=5000 must be from 0 to" in err


@pytest.mark.parametrize("name", ["answer", "answer.nope", "README.md/answer.png", "x" * 300 + ".png"])
def test_a_picture_that_cannot_be_written(run_demo, name):
    code, _, err = run_demo(f"save={name}")
    assert code == 2 and "must be the name of a picture" in err
