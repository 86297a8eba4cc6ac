"""Our lm-eval tasks, run through simple_evaluate with a scripted model: prompts, extraction, scores."""

import gzip
import json
from pathlib import Path

import lm_eval
import pandas as pd
import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from omegaconf import OmegaConf

from unmask.configuration.composition import composed
from unmask.configuration.schema import TaskConfig
from unmask.paths import ROOT
from unmask.tasks import (
    check_task,
    documents,
    metrics_of,
    parallelbench,
    prepare,
    problems,
    score_answers,
    scoring,
)

# --- the config group ---

CONFIGS = sorted((ROOT / "eval_config" / "task").glob("*.yaml"))
OF_LM_EVAL = ("lm_eval", "mmlu")  # scored by likelihoods, by the YAMLs of lm-eval's package


@pytest.mark.parametrize(
    "path", [path for path in CONFIGS if path.stem not in OF_LM_EVAL], ids=lambda path: path.stem
)
def test_every_task_config_names_a_task_and_a_metric_of_it(path):
    config = OmegaConf.load(path)
    del config["defaults"]
    assert set(config) <= set(TaskConfig.__dataclass_fields__)
    check_task(
        TaskConfig(**OmegaConf.to_container(composed("eval", [f"task={path.stem}"]).task, resolve=True))
    )
    index = TaskManager(include_path=ROOT / "eval_config" / "tasks", include_defaults=False).task_index
    if config.name in parallelbench.TASKS:  # made of one file
        assert config.metric in metrics_of(prepare(config.name)[1][config.name])
        return
    assert config.name in index
    task = index["math_algebra" if config.name == "math" else config.name].cfg
    if config.metric is None:
        assert "metric_list" not in task
        return
    metric, filter_name = config.metric.split(",")
    assert metric in [m["metric"] for m in task["metric_list"]]
    assert filter_name in [f["name"] for f in task["filter_list"]]


@pytest.mark.parametrize("name", OF_LM_EVAL)
def test_a_task_by_likelihoods_names_a_folder_of_lm_eval(name):
    task = composed("eval", [f"task={name}"]).task
    assert task.metric is None
    assert (Path(lm_eval.__file__).parent / "tasks" / task.yaml).is_dir()


def test_a_task_is_scored_by_each_of_its_metrics(evaluate, tmp_path, write):
    tasks = {
        "chain_sum": (None, ["exact_match,strict-match", "exact_match,flexible-extract"]),
        "humaneval": (
            write(tmp_path / "h.jsonl", [PROBLEM]),
            ["pass@1,create_test", "pass@1,lenient", "pass@1,sanitised"],
        ),
    }
    for name, (data, metrics) in tasks.items():
        (task,) = prepare(name, data and str(data), True)[1].values()
        assert metrics_of(task) == metrics
        result = evaluate(name, lambda doc: "1", data, limit=1)
        assert set(metrics) <= set(result["results"][name])
        rows = {f"{row['metrics'][0]},{row['filter']}" for row in result["samples"][name]}
        assert rows == set(metrics)


def test_answers_are_scored_as_simple_evaluate_scores_them(evaluate, tmp_path, write):
    answers = ["    return x / 2\n```\n", "return x / 2", "I cannot."]
    data = write(tmp_path / "h.jsonl", [PROBLEM | {"task_id": str(i)} for i in range(3)])
    theirs = evaluate("humaneval", lambda doc: answers[int(doc["task_id"])], data)["samples"]["humaneval"]
    (task,) = prepare("humaneval", str(data), True)[1].values()
    ours = score_answers(task, dict(enumerate(answers)))
    assert {(row["doc_id"], row["metric"]): (row["correct"], row["extracted"]) for row in ours} == {
        (row["doc_id"], f"pass@1,{row['filter']}"): (row["pass@1"], row["filtered_resps"][0])
        for row in theirs
    }
    assert {row["target"] for row in ours} == {PROBLEM["test"] + "\ncheck(half)"}
    failed = [row["extraction_failed"] for row in ours]  # by document: create_test, lenient, sanitised
    assert failed == [False, False, False, False, False, True, False, True, True]


def test_answers_to_any_documents_keep_their_numbers():
    (task,) = prepare("chain_sum")[1].values()
    found = problems.held_out("chain_sum", "test")
    answers = {i: found[i].solution for i in (900, 3, 41)} | {7: "I do not know."}
    rows = [row for row in score_answers(task, answers) if row["metric"] == "exact_match,strict-match"]
    assert [(row["doc_id"], row["correct"]) for row in rows] == [(3, 1), (7, 0), (41, 1), (900, 1)]
    assert [row["target"] for row in rows] == [found[i].answer for i in (3, 7, 41, 900)]
    assert score_answers(task, {}) == []


# --- numbers ---


@pytest.mark.parametrize("task", ["gsm_symbolic", "chain_sum"])
def test_embedded_task_scores_gold_wrong_and_unextractable_answers(outcome, task):
    script = {p.question: p.solution for p in problems.held_out(task, "test")[:4]}
    wrong, mute, dots = list(script)[1:]
    script |= {wrong: "It is 1.\n#### 987654", mute: "I do not know.", dots: "Hmm ... #### ..."}
    found = outcome(task, lambda doc: script[doc["question"]], limit=4)
    gold = problems.held_out(task, "test")[0].answer
    assert found["flexible-extract"] == [(gold, 1), ("987654", 0), (scoring.INVALID, 0), (scoring.INVALID, 0)]
    assert found["strict-match"] == found["flexible-extract"]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_embedded_gold_solutions_are_right_and_the_prompt_is_the_question(evaluate, scripted, split):
    model = scripted(lambda doc: doc["solution"])
    result = evaluate("gsm_symbolic", model, split=split, limit=100, apply_chat_template=True)
    assert result["results"]["gsm_symbolic"]["exact_match,strict-match"] == 1
    assert result["results"]["gsm_symbolic"]["exact_match,flexible-extract"] == 1
    last = problems.held_out("gsm_symbolic", split)[99]
    assert model.chat == [{"role": "user", "content": last.question}]


def test_stop_strings_and_budget_come_from_the_harness_alone(evaluate, tmp_path, write):
    data = write(tmp_path / "gsm8k.jsonl", [{"question": "Two and two?", "answer": "2+2=4\n#### 4"}])
    for given in ({}, {"until": ["Question:"], "max_gen_toks": 256}):
        (sample, _) = evaluate("gsm8k", lambda doc: "4", data, gen_kwargs=given)["samples"]["gsm8k"]
        assert sample["arguments"][0][1] == {"do_sample": False, "until": [], **given}


def test_gsm8k_number_formats(outcome, tmp_path, write):
    scores = {  # strict, flexible
        "It is $1,234.": (0, 1),
        "#### 1234": (1, 1),
        "#### 1,234 of 5": (1, 0),
        "1234 or 1235": (0, 0),
        "": (0, 0),
    }
    answers = dict(enumerate(scores))
    rows = [{"question": f"How much, {i}?", "answer": "So 1000+234=1234.\n#### 1,234"} for i in answers]
    script = {row["question"]: answer for row, answer in zip(rows, scores, strict=True)}
    found = outcome("gsm8k", lambda doc: script[doc["question"]], write(tmp_path / "a.jsonl", rows))
    for i, answer in answers.items():
        assert (found["strict-match"][i][1], found["flexible-extract"][i][1]) == scores[answer], answer


def test_gsm8k_gold_answers_are_right(evaluate, shared):
    result = evaluate("gsm8k", lambda doc: doc["answer"], shared / "gsm8k_test.jsonl")["results"]["gsm8k"]
    assert result["sample_len"] == 1319
    assert result["exact_match,strict-match"] == result["exact_match,flexible-extract"] == 1


# --- MATH ---

SUBJECTS = {  # subject: (documents, of them answered rightly)
    "Algebra": (8, 7),
    "Counting & Probability": (1, 0),
    "Geometry": (2, 1),
    "Intermediate Algebra": (1, 1),
    "Number Theory": (3, 0),
    "Prealgebra": (1, 1),
    "Precalculus": (2, 0),
}


@pytest.fixture
def unequal_math(tmp_path, write):
    """(file, script): subjects of unequal sizes and accuracies, so that no two ways to average them agree."""
    rows = [
        {"problem": f"{subject} {i}?", "solution": rf"So $\boxed{{\frac{{1}}{{{i + 2}}}}}$.", "type": subject}
        for subject, (count, _) in SUBJECTS.items()
        for i in range(count)
    ]

    def script(doc):
        subject, number = doc["problem"].rstrip("?").rsplit(" ", 1)
        right = int(number) < SUBJECTS[subject][1]
        return rf"First \boxed{{7}}, no, $\boxed{{\dfrac{{1}}{{{int(number) + 2 if right else 99}}}}}$."

    return write(tmp_path / "math.jsonl", rows), script


def test_math_scores_every_subject_and_means_them_without_weights(unequal_math, scripted):
    data, script = unequal_math
    expected = {
        f"math_{s.lower().replace(' & ', '_and_').replace(' ', '_')}": right / count
        for s, (count, right) in SUBJECTS.items()
    }
    mean = sum(expected.values()) / 7
    pooled = sum(right for _, right in SUBJECTS.values()) / sum(count for count, _ in SUBJECTS.values())
    assert abs(mean - pooled) > 0.01  # else this test could not fail
    manager, tasks = prepare("math", str(data))
    assert list(tasks) == sorted(tasks) == list(expected)  # the order that numbers the documents
    found = simple_evaluate(scripted(script), tasks=["math"], task_manager=manager, bootstrap_iters=0)
    for name, task in tasks.items():
        rows = score_answers(task, {i: script(doc) for i, doc in enumerate(task.eval_docs)})
        assert sum(row["correct"] for row in rows) / len(rows) == pytest.approx(expected[name])
    for name, accuracy in expected.items():
        assert found["results"][name]["exact_match,boxed"] == pytest.approx(accuracy)
        rows = found["samples"][name]
        assert sum(row["exact_match"] for row in rows) / len(rows) == pytest.approx(accuracy)
    assert found["results"]["math"]["exact_match,boxed"] == pytest.approx(mean)


def test_math_file_without_a_subject_is_refused(outcome, tmp_path, write):
    data = write(tmp_path / "m.jsonl", [{"problem": "?", "solution": r"\boxed{1}", "subject": "Geometry"}])
    assert outcome("math_geometry", lambda doc: r"\boxed{1}", data) == {"boxed": [("1", 1)]}
    with pytest.raises(ValueError, match="m.jsonl.*algebra"):
        prepare("math", str(data))


# --- GPQA ---


def gpqa_rows(count=12):
    # "NA" and "1.50" are what a careless CSV reader loses.
    rows = [[f"Which of them, {i}?", "1.50", "NA", "red", "blue"] for i in range(count)]
    return pd.DataFrame(rows, columns=documents.GPQA_COLUMNS)


def test_gpqa_extracts_the_last_letter(outcome, tmp_path):
    gpqa_rows(4).to_csv(tmp_path / "gpqa.csv", index=False)
    docs = documents.gpqa(str(tmp_path / "gpqa.csv"))["documents"]
    right = docs["answer"]
    wrong = "(A)" if right[1] != "(A)" else "(B)"
    answers = [f"Not (E), but {right[0]}.", wrong, "I choose A", "(LETTER)"]
    script = dict(zip(docs["question"], answers, strict=True))
    found = outcome("gpqa", lambda doc: script[doc["question"]], tmp_path / "gpqa.csv")
    assert found == {"last-letter": [(right[0], 1), (wrong, 0), (scoring.INVALID, 0), (scoring.INVALID, 0)]}


def test_gpqa_order_depends_on_the_question_alone(tmp_path):
    rows = gpqa_rows()
    rows.to_csv(tmp_path / "all.csv", index=False)
    rows[::-1].to_parquet(tmp_path / "reversed.parquet")
    files = [str(tmp_path / name) for name in ("all.csv", "reversed.parquet")]
    docs, again = (list(documents.gpqa(file)["documents"]) for file in files)
    assert docs == again[::-1]
    assert len({doc["answer"] for doc in docs}) == 4
    assert all(doc[doc["answer"][1]] == "1.50" for doc in docs)
    assert {docs[0][letter] for letter in "ABCD"} == {"1.50", "NA", "red", "blue"}


# --- HumanEval ---

PROBLEM = {
    "task_id": "own/0",
    "prompt": 'def half(x):\n    """Half of x."""\n',
    "entry_point": "half",
    "test": "def check(candidate):\n    assert candidate(6) == 3\n",
}


def test_humaneval_reports_the_stock_and_the_lenient_score(outcome, tmp_path, write):
    answers = ["    return x / 2\n```\n", "return x / 2", "    return x", "I cannot."]
    rows = [PROBLEM | {"task_id": f"own/{i}"} for i in range(len(answers))]
    script = lambda doc: answers[int(doc["task_id"][4:])]  # noqa: E731
    found = outcome("humaneval", script, write(tmp_path / "h.jsonl", rows))
    assert [score for _, score in found["create_test"]] == [1, 0, 0, 0]
    assert [score for _, score in found["lenient"]] == [1, 1, 0, 0]
    invalid = {name: [extracted == scoring.INVALID for extracted, _ in rows] for name, rows in found.items()}
    assert invalid == {
        "create_test": [False] * 4,
        "lenient": [False, False, False, True],
        "sanitised": [False, True, False, True],  # an unindented body is no part of a program that parses
    }
    assert found["create_test"][1][0] == PROBLEM["prompt"] + "return x / 2"


def test_humaneval_prompt_is_lm_evals(evaluate, scripted, shared):
    data = shared / "HumanEval.jsonl.gz"
    with gzip.open(data, "rt") as lines:
        rows = {row["task_id"]: row for row in map(json.loads, lines)}
    model = scripted(lambda doc: rows[doc["task_id"]]["canonical_solution"] + "```")
    result = evaluate(
        "humaneval", model, data, limit=2, apply_chat_template=True, system_instruction="Be helpful."
    )
    assert result["results"]["humaneval"]["pass@1,create_test"] == 1
    prompt = list(rows.values())[1]["prompt"]
    system, user, assistant = (message["content"] for message in model.chat)
    assert system == "Be helpful."
    ask = "Write a solution to the following problem and make sure that it passes the tests:"
    assert user == f"{ask}\n```python\n{prompt}\n```\n"
    assert assistant == f"Here is the completed function:\n```python\n{prompt}\n"


def test_humaneval_is_refused_without_permission(tmp_path, write, scripted):
    data = str(write(tmp_path / "h.jsonl", [PROBLEM]))
    with pytest.raises(ValueError, match="allow_code_execution"):
        prepare("humaneval", data)
    with pytest.raises(ValueError, match="unsafe"):  # lm-eval's own lock, before anything is generated
        manager, _ = prepare("humaneval", data, allow_code_execution=True)
        simple_evaluate(scripted(None), tasks=["humaneval"], task_manager=manager)
