"""Our lm-eval tasks, run through simple_evaluate with a scripted model: prompts, extraction, scores,
refusals.

Rows of GSM8K and HumanEval are read from ../shared/data where that exists and are never copied here; the
problems below are our own.
"""

import gzip
import json
from pathlib import Path

import datasets
import pandas as pd
import pytest
from lm_eval import simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from omegaconf import OmegaConf

from unmask.tasks import documents, prepare, problems, scoring

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
SUBJECTS = [
    "Algebra",
    "Counting & Probability",
    "Geometry",
    "Intermediate Algebra",
    "Number Theory",
    "Prealgebra",
]
SUBJECTS += ["Precalculus"]


class Scripted(TemplateLM):
    """Answers each request with what `script` says to its document."""

    eot_token_id = 0
    tokenizer_name = "scripted"

    def __init__(self, script):
        super().__init__()
        self.script = script

    def generate_until(self, requests, **_):
        return [self.script(r.doc) for r in requests]

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        self.chat = chat_history
        return json.dumps(chat_history)

    def tok_encode(self, string, add_special_tokens=None, **_):
        raise NotImplementedError

    loglikelihood_rolling = _loglikelihood_tokens = tok_encode


def evaluate(name, script, data=None, limit=None, **options):
    manager, _ = prepare(name, data and str(data), allow_code_execution=True)
    return simple_evaluate(
        script if isinstance(script, Scripted) else Scripted(script),
        tasks=[name],
        task_manager=manager,
        limit=limit,
        bootstrap_iters=0,
        confirm_run_unsafe_code=True,
        **options,
    )


def outcome(name, script, data=None, limit=None):
    """{filter: [(extracted, score), ...]} of a task with one metric."""
    found = {}
    for sample in evaluate(name, script, data, limit)["samples"][name]:
        (metric,) = sample["metrics"]
        (extracted,) = sample["filtered_resps"]
        found.setdefault(sample["filter"], []).append((extracted, sample[metric]))
    return found


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --- the config group ---


@pytest.mark.parametrize("path", sorted((ROOT / "eval_config" / "task").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_task_config_names_a_task_and_a_metric_of_it(path):
    config = OmegaConf.load(path)
    assert set(config) == {"defaults", "name", "metric", "budget", "system_prompt", "limit", "stop", "data"}
    index = TaskManager(include_path=ROOT / "eval_config" / "tasks", include_defaults=False).task_index
    task = index["math_algebra" if config.name == "math" else config.name].cfg
    assert config.name in index
    metric, filter_name = config.metric.split(",")
    assert metric in [m["metric"] for m in task["metric_list"]]
    assert filter_name in [f["name"] for f in task["filter_list"]]


# --- numbers ---


@pytest.mark.parametrize("task", ["gsm_symbolic", "chain_sum"])
def test_embedded_task_scores_gold_wrong_and_unextractable_answers(task):
    script = {p.question: p.solution for p in problems.held_out(task, "test")[:4]}
    wrong, mute, dots = list(script)[1:]
    script |= {wrong: "It is 1.\n#### 987654", mute: "I do not know.", dots: "Hmm ... #### ..."}
    found = outcome(task, lambda doc: script[doc["question"]], limit=4)
    gold = problems.held_out(task, "test")[0].answer
    assert found["flexible-extract"] == [(gold, 1), ("987654", 0), (scoring.INVALID, 0), (scoring.INVALID, 0)]
    assert found["strict-match"] == found["flexible-extract"]


def test_embedded_gold_solutions_are_right_and_the_prompt_is_the_question():
    model = Scripted(lambda doc: doc["solution"])
    result = evaluate("gsm_symbolic", model, limit=200, apply_chat_template=True)
    assert result["results"]["gsm_symbolic"]["exact_match,strict-match"] == 1
    assert result["results"]["gsm_symbolic"]["exact_match,flexible-extract"] == 1
    assert model.chat == [
        {"role": "user", "content": problems.held_out("gsm_symbolic", "test")[199].question}
    ]


def test_stop_strings_and_budget_come_from_the_harness_alone(tmp_path):
    data = write(tmp_path / "gsm8k.jsonl", [{"question": "Two and two?", "answer": "2+2=4\n#### 4"}])
    for given in ({}, {"until": ["Question:"], "max_gen_toks": 256}):
        (sample, _) = evaluate("gsm8k", lambda doc: "4", data, gen_kwargs=given)["samples"]["gsm8k"]
        assert sample["arguments"][0][1] == {"do_sample": False, "until": [], **given}


def test_gsm8k_number_formats(tmp_path):
    rows = [{"question": "How much?", "answer": "So 1000+234=1234.\n#### 1,234"}]
    for answer, strict, flexible in [
        ("It is $1,234.", 0, 1),
        ("#### 1234", 1, 1),
        ("#### 1,234 of 5", 1, 0),
        ("1234 or 1235", 0, 0),
        ("", 0, 0),
    ]:
        found = outcome("gsm8k", lambda doc, answer=answer: answer, write(tmp_path / "a.jsonl", rows))
        assert (found["strict-match"][0][1], found["flexible-extract"][0][1]) == (strict, flexible), answer


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
def test_gsm8k_gold_answers_are_right():
    result = evaluate("gsm8k", lambda doc: doc["answer"], SHARED / "gsm8k_test.jsonl")["results"]["gsm8k"]
    assert result["sample_len"] == 1319
    assert result["exact_match,strict-match"] == result["exact_match,flexible-extract"] == 1


# --- MATH ---


def test_math_averages_the_subjects_without_weights(tmp_path):
    rows = [
        {"problem": f"{s} {i}?", "solution": rf"So $\boxed{{\frac{{1}}{{{i}}}}}$.", "type": s}
        for s in SUBJECTS
        for i in (2, 3)
    ]
    rows += [rows[0] | {"problem": f"Algebra, more {i}?"} for i in range(4)]
    right = r"First \boxed{7}, no, $\boxed{\dfrac{1}{2}}$."
    result = evaluate("math", lambda doc: right, write(tmp_path / "math.jsonl", rows))["results"]
    assert result["math_algebra"]["exact_match,boxed"] == pytest.approx(5 / 6)
    assert result["math_number_theory"]["exact_match,boxed"] == 0.5
    assert result["math"]["exact_match,boxed"] == pytest.approx((5 / 6 + 6 * 0.5) / 7)


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


def test_math_file_without_a_subject_is_refused(tmp_path):
    data = write(tmp_path / "m.jsonl", [{"problem": "?", "solution": r"\boxed{1}", "subject": "Geometry"}])
    assert outcome("math_geometry", lambda doc: r"\boxed{1}", data) == {"boxed": [("1", 1)]}
    with pytest.raises(ValueError, match="m.jsonl.*algebra"):
        prepare("math", str(data))


# --- GPQA ---


def gpqa_rows(count=12):
    # "NA" and "1.50" are what a careless CSV reader loses.
    rows = [[f"Which of them, {i}?", "1.50", "NA", "red", "blue"] for i in range(count)]
    return pd.DataFrame(rows, columns=documents.GPQA_COLUMNS)


def test_gpqa_extracts_the_last_letter(tmp_path):
    gpqa_rows(4).to_csv(tmp_path / "gpqa.csv", index=False)
    docs = documents.gpqa(str(tmp_path / "gpqa.csv"))["test"]
    right = docs["answer"]
    wrong = "(A)" if right[1] != "(A)" else "(B)"
    script = dict(
        zip(docs["question"], [f"Not (E), but {right[0]}.", wrong, "I choose A", "(LETTER)"], strict=True)
    )
    found = outcome("gpqa", lambda doc: script[doc["question"]], tmp_path / "gpqa.csv")
    assert found == {"last-letter": [(right[0], 1), (wrong, 0), (scoring.INVALID, 0), (scoring.INVALID, 0)]}


def test_gpqa_order_depends_on_the_question_alone(tmp_path):
    rows = gpqa_rows()
    rows.to_csv(tmp_path / "all.csv", index=False)
    rows[::-1].to_parquet(tmp_path / "reversed.parquet")
    docs, again = (list(documents.gpqa(str(tmp_path / f))["test"]) for f in ("all.csv", "reversed.parquet"))
    assert docs == again[::-1]
    assert len({doc["answer"] for doc in docs}) == 4
    assert all(doc[doc["answer"][1]] == "1.50" for doc in docs)
    assert {docs[0][letter] for letter in "ABCD"} == {"1.50", "NA", "red", "blue"}


# --- HumanEval ---

PROMPT = 'import math\n\n\ndef half(x):\n    """Half of x."""\n'
PROBLEM = {
    "task_id": "own/0",
    "prompt": PROMPT,
    "entry_point": "half",
    "test": "def check(candidate):\n    assert candidate(6) == 3\n",
}


@pytest.mark.parametrize(
    "answer",
    [
        "    return x / 2\n```\nIt divides by two.",
        "    return x / 2\n\nIt divides by two.",
        "return x / 2",
        "Sure, here it is:\n```python\ndef half(x):\n    return x / 2\n```\nTry:\n```python\nprint(half(3))\n```",
        f"```Python\n{PROMPT}    return x / 2\n```",
        "def half(x):\n    return x / 2\n\nassert half(3) == 2\nprint('oops')",
        "def other(x):\n    return x / 2\n\ndef half(x):\n    return other(x)\n\nif __name__ == '__main__':\n    half(",
        "    if x == 6:\n        return 3\n    return x /",
    ],
)
def test_humaneval_finds_the_program(answer, tmp_path):
    ((extracted, score),) = outcome("humaneval", lambda doc: answer, write(tmp_path / "h.jsonl", [PROBLEM]))[
        "create_test"
    ]
    assert score == 1, extracted


@pytest.mark.parametrize(
    "answer", ["", "```python\n```", "I cannot do that.", "    return (x", PROMPT, "    ..."]
)
def test_humaneval_without_a_program_is_invalid(answer):
    assert scoring.program(answer, PROMPT, "half") == scoring.INVALID


def test_humaneval_scores_wrong_programs_zero(tmp_path):
    answers = ["    return x", "    raise SystemExit(0)", "    import os\n    os._exit(0)", "I cannot."]
    rows = [PROBLEM | {"task_id": f"own/{i}"} for i in range(len(answers))]
    script = lambda doc: answers[int(doc["task_id"][4:])]  # noqa: E731
    found = outcome("humaneval", script, write(tmp_path / "h.jsonl", rows))["create_test"]
    assert [score for _, score in found] == [0, 0, 0, 0]
    assert [extracted == scoring.INVALID for extracted, _ in found] == [False, False, False, True]


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
def test_humaneval_canonical_solutions_pass_and_the_prompt_is_lm_evals():
    data = SHARED / "HumanEval.jsonl.gz"
    with gzip.open(data, "rt") as lines:
        rows = {row["task_id"]: row for row in map(json.loads, lines)}
    model = Scripted(lambda doc: rows[doc["task_id"]]["canonical_solution"] + "```")
    result = evaluate(
        "humaneval", model, data, limit=5, apply_chat_template=True, system_instruction="Be helpful."
    )
    assert result["results"]["humaneval"]["pass@1,create_test"] == 1
    prompt = list(rows.values())[4]["prompt"]
    system, user, assistant = (message["content"] for message in model.chat)
    assert system == "Be helpful."
    ask = "Write a solution to the following problem and make sure that it passes the tests:"
    assert user == f"{ask}\n```python\n{prompt}\n```\n"
    assert assistant == f"Here is the completed function:\n```python\n{prompt}\n"


def test_humaneval_is_refused_without_permission(tmp_path):
    data = str(write(tmp_path / "h.jsonl", [PROBLEM]))
    with pytest.raises(ValueError, match="allow_code_execution"):
        prepare("humaneval", data)
    with pytest.raises(ValueError, match="unsafe"):  # lm-eval's own lock, before anything is generated
        manager, _ = prepare("humaneval", data, allow_code_execution=True)
        simple_evaluate(Scripted(None), tasks=["humaneval"], task_manager=manager)


# --- where documents come from ---


def test_unknown_task_is_refused():
    with pytest.raises(ValueError, match="gsm8k_cot.*gsm_symbolic"):
        prepare("gsm8k_cot")


def test_embedded_task_takes_no_file():
    with pytest.raises(ValueError, match="chain_sum.*data"):
        prepare("chain_sum", "some.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.jsonl", None, "no such file.*question, answer"),
        ("data.txt", "x", "unknown kind"),
        ("bad.jsonl", "{not json", "cannot be read.*question, answer"),
        ("bad.jsonl.gz", "not gzip", "cannot be read.*question, answer"),
        ("empty.jsonl", "", "question, answer"),
        ("header.csv", "question,answer\n", "0 rows"),
        ("other.json", '[{"question": "?", "result": 1}]', "question, answer.*result"),
        ("number.jsonl", '{"question": "?", "answer": 4}', "row 1.*answer"),
        ("blank.csv", "question,answer\n?,#### 1\n?,\n", "row 2.*answer"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"(?s){name}.*{message}"):
        prepare("gsm8k", str(tmp_path / name))


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.jsonl.gz", "rows.csv", "rows.parquet"])
def test_every_kind_of_file_gives_the_same_documents(tmp_path, name):
    rows = pd.DataFrame(
        [{"date": 1, "question": "2020-01-01", "answer": "007"}, {"question": "NA", "answer": "é"}]
    )
    path, kind = tmp_path / name, name.split(".")[1]
    if kind == "csv":
        rows.to_csv(path, index=False)
    elif kind == "parquet":
        rows.to_parquet(path)
    else:
        rows.to_json(path, orient="records", lines=kind == "jsonl")
    assert list(documents.gsm8k(str(path))["test"]) == rows[["question", "answer"]].to_dict("records")


def test_the_hub_is_the_default(monkeypatch):
    asked = []

    def load_dataset(path, name, split):
        asked.append((path, name, split))
        return datasets.Dataset.from_list([{"problem": "?", "solution": r"\boxed{1}", "level": "1"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(documents.math("algebra")["test"]) == [
        {"problem": "?", "solution": r"\boxed{1}", "answer": "1"}
    ]
    assert asked == [("EleutherAI/hendrycks_math", "algebra", "test")]


def test_an_unreachable_hub_is_a_clear_error(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match="Idavidrein/gpqa.*no network.*data"):
        prepare("gpqa")
