"""Extraction and scores of MATH and HumanEval, answer by answer; test_tasks.py has the whole way."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.tasks import scoring

# --- MATH ---


@pytest.mark.parametrize(
    ("answer", "extracted"),
    [
        (r"\boxed{1} then \boxed{\text{a {b} c}}.", r"\text{a {b} c}"),
        (r"Thus boxed{12}", "12"),
        (r"\boxed {12} as asked", "12"),
        (r"\boxed{12", scoring.INVALID),
        (r"\boxed{}", scoring.INVALID),
        (r"\fbox{12}", scoring.INVALID),
        ("12", scoring.INVALID),
        ("", scoring.INVALID),
    ],
)
def test_last_boxed(answer, extracted):
    assert scoring.last_boxed(answer) == extracted


math_like = st.lists(
    st.sampled_from([r"\boxed", r"\fbox", "boxed", "{", "}", " ", "1", "$", "\\", "\n"])
).map("".join)


@settings(deadline=None, database=None)
@given(math_like)
def test_any_text_has_a_box_or_none(text):
    found = scoring.last_boxed(text)
    assert found and found == found.strip()
    assert scoring.equivalent({"answer": "x"}, [found])["exact_match"] == 0


# --- HumanEval ---

PROMPT = 'import math\n\n\ndef half(x):\n    """Half of x."""\n'
PROBLEM = {
    "task_id": "own/0",
    "prompt": PROMPT,
    "entry_point": "half",
    "test": "def check(candidate):\n    assert candidate(6) == 3\n",
}


def score(answer, problem=PROBLEM):
    """{filter: score} of one answer."""
    filters = {"create_test": scoring.stock_programs, "lenient": scoring.lenient_programs}
    made = {name: make([[answer]], [problem])[0] for name, make in filters.items()}
    return {name: scoring.passes(problem, found)["pass@1"] for name, found in made.items()}


ORDINARY = {
    "prose before a fence": "Sure:\n```python\ndef half(x):\n    return x / 2\n```\nIt divides by two.",
    "a fence opened again": f"```python\n{PROMPT}    return x / 2\n```",
    "prose after the code": "    return x / 2\n\nIt divides by two.",
    "no indentation": "return x / 2",
    "half a line at the end of max_new_tokens": "    if x == 6:\n        return 3\n    return x /",
    "an example of its own that fails": "    return x / 2\n\nassert half(3) == 2",
}


@pytest.mark.parametrize("answer", ORDINARY.values(), ids=ORDINARY)
def test_ordinary_answers_that_only_the_lenient_filter_takes(answer):
    assert score(answer) == {"create_test": 0, "lenient": 1}


@pytest.mark.parametrize(
    "answer",
    [
        "    return x / 2\n```\nIt divides by two.",  # what the prompt asks for
        "    return x / 2",
        "    return other(x)\n\n\ndef other(x):\n    return x / 2\n",
    ],
)
def test_right_answers_that_both_filters_take(answer):
    assert score(answer) == {"create_test": 1, "lenient": 1}


@pytest.mark.parametrize(
    "answer", ["    return x", "    raise SystemExit(0)", "    import os\n    os._exit(0)", "I cannot.", ""]
)
def test_wrong_answers_that_neither_filter_takes(answer):
    assert score(answer) == {"create_test": 0, "lenient": 0}


@pytest.mark.parametrize(
    "answer",
    [
        "```Python\ndef half(x):\n    return x / 2\n```\nTry:\n```python\nprint(half(3))\n```",
        "def half(x):\n    return x / 2\n\nprint('oops')",
        "def other(x):\n    return x / 2\n\ndef half(x):\n    return other(x)\n\nif half:\n    half(",
    ],
)
def test_the_lenient_filter_finds_the_program(answer):
    assert score(answer)["lenient"] == 1


@pytest.mark.parametrize(
    "answer", ["", "```python\n```", "I cannot do that.", "    return (x", PROMPT, "    ..."]
)
def test_the_lenient_filter_says_where_no_program_is(answer):
    assert scoring.program(answer, PROMPT, "half") == scoring.INVALID


@pytest.mark.parametrize("answer", ["a ``` b ``` c", "no fence", "``` first", ""])
def test_the_stock_program_is_lm_evals(answer):
    """build_predictions_instruct of lm-eval, word for word."""
    theirs = PROMPT + (answer if answer.find("```") == -1 else answer[: answer.find("```")])
    assert scoring.stock_programs([[answer]], [PROBLEM]) == [[theirs]]


code_like = st.lists(
    st.sampled_from(
        [
            "```",
            "python",
            "\n",
            "    ",
            "return x",
            "def half(x):",
            "(",
            ")",
            '"""',
            "x = ",
            "-" * 700,
            "\0",
            "é",
        ]
    ),
    max_size=12,
).map("".join)


@settings(deadline=None, database=None)
@given(code_like)
def test_any_text_is_a_program_with_a_body_or_none(answer):
    found = scoring.program(answer, PROMPT, "half")
    assert found == scoring.INVALID or "def half(x)" in found


def test_an_expression_too_deep_to_write_down_is_no_program():
    assert scoring.program("    return " + "-" * 2000 + "x", PROMPT, "half") == scoring.INVALID


def test_canonical_solutions_pass_both(shared):
    with gzip.open(shared / "HumanEval.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines][:3]
    for row in rows:
        assert score(row["canonical_solution"] + "```", row) == {"create_test": 1, "lenient": 1}
