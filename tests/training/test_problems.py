"""The embedded tasks: filter, splits, no leakage, drills that calculate correctly."""

import random
import re

import pytest

from unmask.tasks import problems

TASKS = list(problems.OPTIONS)


@pytest.mark.parametrize("task", TASKS)
def test_no_held_out_question_is_in_the_training_stream(task):
    held_out = {p.question for split in ("test", "validation") for p in problems.held_out(task, split)}
    assert len(held_out) == 2 * problems.HELD_OUT  # validation shares none with test
    for chunk in (0, 1, 2, 6_400_000):
        assert not held_out & {p.question for p in problems.training_stream(task, chunk, 500)}


@pytest.mark.parametrize("task", TASKS)
def test_the_exclusion_is_needed_and_not_vacuous(task, monkeypatch):
    """Without the exclusion some test questions would be trained on: templates have few variants."""
    held_out = {p.question for p in problems.held_out(task, "test")}
    monkeypatch.setattr(problems, "held_out", lambda *_: ())
    seen = {p.question for p in problems.training_stream(task, 0, 2000)}
    assert held_out & seen


# Recorded with every run: a change of these is a change of the benchmark.
FINGERPRINTS = {
    "gsm_symbolic": "c6b545e4683b",
    "chain_sum": "5be006b13264",
    "several_kinds": "065e2a615b16",
}


@pytest.mark.parametrize("task", TASKS)
def test_test_problems_are_fixed(task):
    assert problems.fingerprint(task) == FINGERPRINTS[task]
    assert len(problems.held_out(task, "test")) == problems.HELD_OUT


@pytest.mark.parametrize("task", problems.WORKED)
def test_problems_obey_the_documented_filter(task):
    for p in problems.held_out(task, "test"):
        numbers = re.findall(r"\d+(?:[.,]\d+)*", p.question + " " + p.solution)
        assert all(n.isdigit() and 0 <= int(n) <= problems.MAX_NUMBER for n in numbers), p
        assert p.solution.endswith(f"#### {p.answer}")


@pytest.mark.parametrize(
    "question, solution, admitted",
    [
        ("3 apples and 4.", "3+4=7\n#### 7", True),
        ("3 apples and 400.", "3+4=7\n#### 7", False),
        ("3.5 apples.", "#### 7", False),
        ("1,000 apples.", "#### 7", False),
        ("3 and 4", "3 - 4 = -1\n#### -1", False),
        ("7 and 4", "7-4=3\n#### 3", True),
        ("7 and 4", "€7-€4=-€3\n#### 3", False),
        ("half of 201", "#### 7", False),
    ],
)
def test_filter(question, solution, admitted):
    assert problems.admitted("gsm_symbolic", problems.Problem(question, solution, "7")) == admitted


def test_questions_of_several_kinds_have_whole_numbers_for_answers():
    found = problems.held_out("several_kinds", "test")
    assert all(re.fullmatch(r"-?\d+", p.answer) and len(p.question) <= problems.MAX_QUESTION for p in found)
    assert not any(phrase in p.question for p in found for phrase in problems.OF_GSM8K)
    words = ("legs", "letter", "equation", "prime", "GCD", "LCM", "polygon", "Do not include units")
    assert all(sum(word in p.question for p in found) >= 10 for word in words)


def test_training_chunks_are_reproducible_and_different():
    a, b, c = (problems.training_stream("gsm_symbolic", chunk, 50) for chunk in (3, 3, 4))
    assert a == b != c


def test_running_totals():
    assert problems.running_totals("4 + 9 - 3") == "4 + 9 = 13\n13 - 3 = 10\n#### 10"


def test_drills_calculate_correctly():
    for text, result in problems.drill(random.Random(1), 2000):
        plain = (
            re.sub(r"[$€£ =]", "", text)
            .replace("x", "*")
            .replace("×", "*")
            .replace("÷", "/")
            .replace("%", "/100")
        )
        assert abs(eval(plain) - int(re.sub(r"[$€£ ]", "", result))) < 1e-9, (text, result)


def test_no_drill_is_a_held_out_sum():
    sums = {p.question.split(": ")[-1].replace(" ", "") for p in problems.held_out("chain_sum", "test")}
    drills = {re.sub("[$€£ ]", "", text) for text, _ in problems.drill(random.Random(0), 20_000)}
    assert len(sums) > 900 and not sums & drills


def test_unknown_task():
    with pytest.raises(ValueError, match="gsm_symbolic"):
        next(problems.generate("gsm9k", 0))
