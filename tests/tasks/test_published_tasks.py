"""The tasks of the published tables: reference solutions are right, wrong ones are not, and what is published
about their scorers holds. Rows of data sets are read from ../shared/data and skipped without it."""

import json
from collections import Counter

import pytest

from unmask.tasks import prepare, score_answers, scoring


def right(task, answers):
    """metric -> how many answers are right."""
    found = Counter()
    for row in score_answers(task, dict(enumerate(answers))):
        found[row["metric"]] += row["correct"]
    return found


def loaded(name, data, **options):
    (task,) = prepare(name, str(data), True, **options)[1].values()
    return task


ROW = {
    "text": "Write a function to halve.",
    "code": "def half(x):\r\n    return x / 2",
    "test_list": ["assert half(4) == 2", "assert half(2) == 1", "assert half(0) == 0"],
}


@pytest.mark.parametrize(
    ("answer", "raw", "sanitised"),
    [
        (ROW["code"], 1, 1),
        ("def half(x):\n    return x / 3", 0, 0),
        ("Sure:\n```python\ndef half(x):\n    return x / 2\n```\nDone.", 0, 1),
        ("def half(x):\n    return x / 2\nraise ValueError", 0, 1),  # what runs besides is left out
        ("def half(x):\n    print(x)", 0, 0),  # without a return: dropped
        ("I cannot.", 0, 0),
    ],
)
def test_programs_of_mbpp_are_scored_raw_and_sanitised(tmp_path, write, answer, raw, sanitised):
    task = loaded("mbpp", write(tmp_path / "rows.jsonl", [ROW]))
    assert right(task, [answer]) == {"pass@1,raw": raw, "pass@1,sanitised": sanitised}


def test_mbpp_plus_runs_its_own_test_program(tmp_path, write):
    row = {key: value for key, value in ROW.items() if key != "text"} | {
        "prompt": ROW["text"],
        "test": "assert half(5) == 2.5",
    }
    task = loaded("mbpp_plus", write(tmp_path / "rows.jsonl", [row]))
    assert right(task, ["def half(x):\n    return x // 2"])["pass@1,raw"] == 0  # passes the three asserts
    assert right(task, [ROW["code"]])["pass@1,raw"] == 1


@pytest.mark.parametrize(
    ("answer", "entry_point", "kept"),
    [
        (
            "import os\nx = 1\ndef f():\n    return g() + x\ndef g():\n    return 1\ndef h():\n    return 2",
            "f",
            "fgx",
        ),
        ("import os\ndef f():\n    return 1\ndef h():\n    return 2", None, "fh"),
        ("text before it\ndef f():\n    return 1\nand text after it", None, "f"),
    ],
)
def test_the_sanitiser_keeps_what_the_entry_point_reaches(answer, entry_point, kept):
    namespace = {}
    exec(scoring.sanitised(answer, entry_point), namespace)
    assert {name for name in "fghx" if name in namespace} == set(kept)
    assert ("os" in namespace) == ("import os" in answer)


def test_worked_examples_are_the_tasks_own(tmp_path, write):
    task = loaded("mbpp", write(tmp_path / "rows.jsonl", [ROW]), num_fewshot=3)
    assert [shot["text"].split()[2] for shot in task.fewshot_docs()] == ["function", "python", "function"]
    for options, message in (
        ({"num_fewshot": 4}, "task.num_fewshot=4: there are 3"),
        ({"num_fewshot": 3, "shots": "drawn"}, "task.shots=drawn: task mbpp has its own"),
    ):
        with pytest.raises(ValueError, match=message):
            loaded("mbpp", tmp_path / "rows.jsonl", **options)


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("mbpp", ROW | {"test_list": "assert"}, "row 1 has no list of texts in column 'test_list'"),
        ("aime25", {"problem": "?", "answer": "pi"}, "row 1 has no number in column 'answer'"),
        ("speed_alpaca", {"instruction": "", "input": ""}, "row 1 has no text in column 'instruction'"),
    ],
)
def test_columns_of_another_kind_are_refused(tmp_path, write, name, row, message):
    with pytest.raises(ValueError, match=message):
        loaded(name, write(tmp_path / "rows.jsonl", [row]))


def test_aime_takes_numbers_and_reads_boxes(tmp_path, write):
    task = loaded("aime25", write(tmp_path / "rows.jsonl", [{"problem": "1+1?", "answer": 2}] * 2))
    assert right(task, [r"It is \boxed{2}.", r"It is \boxed{3}."]) == {"exact_match,none": 1}


def test_prompts_of_speed_sets(tmp_path, write):
    rows = {
        "speed_alpaca": [{"instruction": "Add.", "input": "1, 1"}, {"instruction": "Sing.", "input": None}],
        "speed_livecodebench": [
            {"question_content": "Q?", "starter_code": "class A:"},
            {"question_content": "Q?", "starter_code": ""},
        ],
    }
    found = {}
    for name, documents in rows.items():
        task = loaded(name, write(tmp_path / f"{name}.jsonl", documents))
        found[name] = [task.doc_to_text(doc) for doc in task.eval_docs]
    assert found["speed_alpaca"] == ["Add.\n\nInput:\n1, 1", "Sing."]
    expert, first = found["speed_livecodebench"][0].split("\n\n", 1)
    assert expert.startswith("You are an expert Python programmer. You will")
    assert expert.endswith("except for the program")
    answer = "### Answer: (use the provided format with backticks)"
    code = "### Format: Use the following code structure:\n```python\nclass A:\n```"
    assert first == f"### Question:\nQ?\n\n{code}\n\n{answer}"
    blank = "### Format: Write your code in the following format:\n```python\n# YOUR CODE HERE\n```"
    assert found["speed_livecodebench"][1] == f"{expert}\n\n### Question:\nQ?\n\n{blank}\n\n{answer}"


# --- with the published rows ---


@pytest.mark.slow
def test_reference_solutions_of_mbpp_pass_but_for_the_one_that_needs_setup_code(shared):
    task = loaded("mbpp", shared / "mbpp" / "test.jsonl")
    codes = list(task.eval_docs["code"])
    assert right(task, codes) == {"pass@1,raw": 499, "pass@1,sanitised": 499}
    assert set(right(task, ["def f():\n    return 1"] * 20).values()) == {0}


def test_some_reference_solutions_of_mbpp(shared):
    task = loaded("mbpp", shared / "mbpp" / "test.jsonl")
    assert right(task, task.eval_docs["code"][:8]) == {"pass@1,raw": 8, "pass@1,sanitised": 8}


FINAL = "{}\nFinal Answer: The final answer is ${}$. I hope it is correct."


@pytest.mark.slow
def test_reference_solutions_of_math500_are_right_by_the_scorers_that_can_read_them(shared):
    pytest.importorskip("math_verify")
    task = loaded("math500", shared / "math500" / "test.jsonl")
    solutions = list(task.eval_docs["solution"])
    boxed = right(task, solutions)
    assert boxed["math_verify,text"] == 500
    # as published: 0.4.8 reads 80.4% of the bare answers, and what is only boxed is no exact match
    assert boxed["math_verify_0.4.8,text"] == 402 and boxed["exact_match,final-answer"] == 0
    said = [FINAL.format(text, scoring.last_boxed(text)) for text in solutions]
    assert right(task, said)["exact_match,final-answer"] == 500
    assert set(right(task, [FINAL.format("", 987654321)] * 500).values()) == {0}


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        (r"\frac{1}{2}", "0.5", True),
        ("2+x", "x+2", True),
        ("(1,2)", "(1,2)", True),
        ("3", "4", False),
        ("{", "4", False),
    ],
)
def test_two_formulas_are_one_answer(answer, gold, same):
    pytest.importorskip("math_verify")
    assert scoring.same_answer(answer, gold) is same


def test_limits_of_math_hold_every_subject_in_its_share(shared):
    pytest.importorskip("math_verify")
    task = loaded("minerva_math", shared / "math500" / "test.jsonl")
    assert len(set(task.eval_docs["template"])) == 7
    rows = [json.loads(line) for line in (shared / "math500" / "test.jsonl").read_text().splitlines()]
    assert list(task.eval_docs["problem"]) == [row["problem"] for row in rows]
