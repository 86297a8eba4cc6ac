"""Where documents come from: splits, worked examples, files, the Hub; and what is refused."""

import hashlib
import itertools
import json
import subprocess
import sys
from types import SimpleNamespace

import datasets
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.configuration.schema import TaskConfig
from unmask.paths import ROOT
from unmask.tasks import check_task, documents, prepare, problems

EMBEDDED = list(problems.OPTIONS)


def chats(tasks, system=None):
    """What a model is told, per document."""
    found = []
    for task in tasks.values():
        task.build_all_requests(
            system_instruction=system,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            chat_template=lambda chat, add_generation_prompt: json.dumps(chat),
        )
        found += [json.loads(instance.args[0]) for instance in task.instances]
    return found


# --- splits ---

# Recorded runs are identified by their prompts: a change of these orphans every one of them.
PROMPTS = {"gsm_symbolic": "4adff0ee408d", "chain_sum": "b2cc62905c21", "several_kinds": "3fde12eaaa56"}
TRAIN = {"gsm_symbolic": "c7fee44a8022", "chain_sum": "c1a97607a636", "several_kinds": "88007cfbff13"}


def digest(found):
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:12]


@pytest.mark.parametrize("task", EMBEDDED)
def test_prompts_without_examples_are_the_bare_questions_as_recorded(task):
    found = chats(prepare(task)[1])
    assert found == [[{"role": "user", "content": p.question}] for p in problems.held_out(task, "test")]
    assert digest(found) == PROMPTS[task]


@pytest.mark.parametrize("task", EMBEDDED)
def test_splits_of_an_embedded_task_are_fixed_and_share_no_question(task, monkeypatch):
    monkeypatch.setattr(problems, "TRAIN", 1500)  # more than one chunk
    found = {s: prepare(task, split=s)[1][task].eval_docs for s in ("test", "validation", "train")}
    assert {s: len(docs) for s, docs in found.items()} == {"test": 1000, "validation": 1000, "train": 1500}
    questions = {s: set(docs["question"]) for s, docs in found.items()}
    assert all(len(questions[s]) == len(found[s]) for s in found)  # no document twice
    for a, b in itertools.combinations(questions.values(), 2):
        assert not a & b
    train = found["train"].remove_columns("template")
    assert digest(list(train)[:1200]) == TRAIN[task]


def test_train_is_the_beginning_of_what_is_trained_on():
    (first,) = itertools.islice(problems.training_split("gsm_symbolic"), 1)
    assert first == problems.training_stream("gsm_symbolic", 0, problems.TRAIN_CHUNK)[0]


def test_the_other_splits_generate_no_training_problem(monkeypatch):
    monkeypatch.setattr(problems, "training_stream", None)
    for split in ("test", "validation"):
        prepare("chain_sum", split=split)


def test_a_file_is_the_wanted_split_and_a_folder_has_one_file_of_each(tmp_path, write):
    row = {"question": "?", "answer": "#### 1"}
    rows = {split: [row | {"question": f"{split} {i}?"} for i in range(3)] for split in ("test", "train")}
    files = {split: write(tmp_path / f"{split}.jsonl", rows[split]) for split in rows}
    for split in rows:
        for data in (tmp_path, files[split]):
            (task,) = prepare("gsm8k", str(data), split=split)[1].values()
            assert list(task.eval_docs) == rows[split]
    write(tmp_path / "test.json", [])
    with pytest.raises(ValueError, match=r"one file test.jsonl.*has test.json, test.jsonl"):
        prepare("gsm8k", str(tmp_path))
    files["train"].unlink()
    with pytest.raises(ValueError, match=r"one file train.jsonl.*has none"):
        prepare("gsm8k", str(tmp_path), split="train")


@pytest.mark.parametrize("file", ["gsm8k/test.jsonl", "gsm8k_test.jsonl", "GSM8K.jsonl"])
def test_a_folder_of_several_data_sets_gives_each_task_its_own(tmp_path, write, file):
    (tmp_path / "gsm8k").mkdir()
    row = {"question": "?", "answer": "#### 1"}
    write(tmp_path / file, [row])
    write(tmp_path / "gsm8k" / "train.jsonl", [row | {"question": "train?"}] * 2)
    write(tmp_path / "math500.jsonl", [{"problem": "?", "solution": "1", "subject": "Algebra"}])
    write(tmp_path / "aime25.jsonl", [{"problem": "25?", "answer": 1}])
    write(tmp_path / "aime24.jsonl", [{"problem": "24?", "answer": 1}])
    for name in ("gsm8k", "gsm8k_cot", "gsm8k_cot_zeroshot", "speed_gsm8k"):
        (task,) = prepare(name, str(tmp_path))[1].values()
        assert list(task.eval_docs) == [row]
    (task,) = prepare("gsm8k", str(tmp_path), num_fewshot=2)[1].values()
    assert task.fewshot_docs()["question"] == ["train?"] * 2
    for name in ("aime24", "aime25"):
        (task,) = prepare(name, str(tmp_path))[1].values()
        assert task.eval_docs["problem"] == [f"{name[-2:]}?"]
    for name, wanted in (("minerva_math", "math"), ("math", "math"), ("gpqa", "gpqa")):
        with pytest.raises(
            ValueError, match=rf"{wanted}/test.jsonl or {wanted}_test.jsonl or {wanted}.jsonl"
        ):
            prepare(name, str(tmp_path))
    (tmp_path / "gsm8k" / "train.jsonl").unlink()  # gsm8k.jsonl is no train split
    with pytest.raises(ValueError, match=r"gsm8k/train.jsonl or gsm8k_train.jsonl \("):
        prepare("gsm8k", str(tmp_path), num_fewshot=1)


def test_a_generated_task_reads_no_folder_either(tmp_path):
    with pytest.raises(ValueError, match="is generated and reads no file"):
        prepare("chain_sum", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "split"),
    [("gsm8k", "validation"), ("math", "validation"), ("gpqa", "train"), ("humaneval", "train")],
)
def test_a_split_that_a_task_lacks_is_refused(name, split):
    with pytest.raises(ValueError, match=rf"task.split={split}: task {name} has test"):
        prepare(name, "any.jsonl", allow_code_execution=True, split=split)


# --- worked examples ---


@pytest.mark.parametrize("task", EMBEDDED)
@pytest.mark.parametrize("split", ["test", "validation"])
def test_shots_are_the_first_training_problems_worked_out_for_every_document(task, split):
    shots = list(itertools.islice(problems.training_split(task), 3))
    shown = [
        {"role": role, "content": text}
        for shot in shots
        for role, text in (("user", shot.question), ("assistant", shot.solution))
    ]
    assert all("\n#### " in "\n" + shot.solution for shot in shots)
    found = chats(prepare(task, split=split, num_fewshot=3)[1])
    assert len(found) == 1000
    for chat, problem in zip(found, problems.held_out(task, split), strict=True):
        assert chat == [*shown, {"role": "user", "content": problem.question}]


def test_shots_of_gsm8k_come_from_the_train_file_and_follow_the_system_prompt(tmp_path, write):
    worked = "She has 1+1=2.\n#### 2"
    for split in ("test", "train"):
        rows = [{"question": f"{split} {i}?", "answer": worked} for i in range(3)]
        write(tmp_path / f"{split}.jsonl", rows)
    found = chats(prepare("gsm8k", str(tmp_path), num_fewshot=2)[1], system="Be brief.")
    assert len(found) == 3
    assert [(m["role"], m["content"]) for m in found[1]] == [
        ("system", "Be brief."),
        ("user", "Question: train 0?\nAnswer:"),
        ("assistant", worked),
        ("user", "Question: train 1?\nAnswer:"),
        ("assistant", worked),
        ("user", "Question: test 1?\nAnswer:"),
    ]


def test_shots_of_math_are_of_the_documents_subject(tmp_path, write):
    for split in ("test", "train"):
        rows = [
            {"problem": f"{split} {s}?", "solution": rf"Worked: \boxed{{{i}}}", "subject": s}
            for i, s in enumerate(("algebra", "geometry"))
        ]
        write(tmp_path / f"{split}.jsonl", rows)
    (chat,) = chats(prepare("math_geometry", str(tmp_path), num_fewshot=1)[1])
    assert [m["content"] for m in chat] == [
        "Problem: train geometry?\nAnswer:",
        r"Worked: \boxed{1}",
        "Problem: test geometry?\nAnswer:",
    ]


def test_scores_do_not_depend_on_shots(evaluate):
    result = evaluate("chain_sum", lambda doc: doc["solution"], num_fewshot=2, limit=5)
    assert result["results"]["chain_sum"]["exact_match,strict-match"] == 1
    assert result["n-shot"]["chain_sum"] == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gsm_symbolic", {"split": "train"}, "task.split=train"),
        ("gsm8k", {"data": "test.jsonl"}, r"test.jsonl is one file.*train.jsonl"),
        ("gsm8k", {"data": ".", "num_fewshot": 4}, "there are 3 worked examples of gsm8k"),
        ("gpqa", {"data": "gpqa.csv"}, "gpqa has no train split"),
    ],
)
def test_shots_that_there_are_not_are_refused(tmp_path, monkeypatch, write, name, options, message):
    monkeypatch.chdir(tmp_path)
    for split in ("test", "train"):
        write(tmp_path / f"{split}.jsonl", [{"question": "?", "answer": "1"}] * 3)
    pd.DataFrame([["?", "a", "b", "c", "d"]], columns=documents.GPQA_COLUMNS).to_csv("gpqa.csv")
    with pytest.raises(ValueError, match=rf"task.num_fewshot=\d: .*{message}"):
        prepare(name, **({"num_fewshot": 1} | options))


# --- files ---


def test_unknown_task_is_refused():
    with pytest.raises(ValueError, match="gsm9k.*gsm_symbolic"):
        prepare("gsm9k")


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


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x.jsonl", "x" * 5000, "a\0b"])
def test_impossible_paths_are_no_such_file(name):
    with pytest.raises(ValueError, match="no such file"):
        prepare("gsm8k", name)


@settings(max_examples=50, deadline=None, database=None)
@given(content=st.binary(max_size=200), kind=st.sampled_from(sorted(documents.READERS)))
def test_a_damaged_file_is_refused_or_read(tmp_path_factory, content, kind):
    path = tmp_path_factory.mktemp("damaged") / f"rows{kind}"
    path.write_bytes(content)
    try:
        rows = documents.gsm8k(str(path))["documents"]
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert all(row["question"].strip() and row["answer"].strip() for row in rows)


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
    found = documents.gsm8k(str(path))["documents"]
    assert list(found) == rows[["question", "answer"]].to_dict("records")


# --- the Hub ---


@pytest.mark.parametrize("split", ["test", "train"])
def test_the_hub_is_the_default(monkeypatch, split):
    asked = []

    def load_dataset(path, name, split):
        asked.append((path, name, split))
        return datasets.Dataset.from_list([{"problem": "?", "solution": r"\boxed{1}", "level": "1"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = list(documents.math(subject="algebra", split=split)["documents"])
    assert found == [{"problem": "?", "solution": r"\boxed{1}", "answer": "1"}]
    assert asked == [("EleutherAI/hendrycks_math", "algebra", split)]


def test_an_unreachable_hub_is_a_clear_error(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match="Idavidrein/gpqa.*no network.*data"):
        prepare("gpqa")


# --- settings ---

PROMPT = {"prompt": "text", "bos": True, "suffix": " Go.", "gen_prefix": "A:", "shots": "drawn"}
GOOD = {"name": "gsm8k", "metric": "exact_match,strict-match", "max_new_tokens": 8}


def test_the_settings_of_every_task_are_fine():
    check_task(TaskConfig(**GOOD))
    check_task(TaskConfig(**GOOD, limit=3, subset_seed=0, num_fewshot=4, split="train", stop=["a"], data="x"))
    check_task(TaskConfig(**(GOOD | PROMPT | {"metric": None, "documents": [4, 1]})))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stop", 3),
        ("stop", "Question:"),
        ("stop", None),
        ("stop", [""]),
        ("stop", [3]),
        ("name", None),
        ("name", ""),
        ("metric", 1),
        ("metric", "exact_match"),
        ("metric", "a,b,c"),
        ("metric", "a,"),
        ("split", "dev"),
        ("split", None),
        ("max_new_tokens", 0),
        ("max_new_tokens", None),
        ("max_new_tokens", 2.5),
        ("max_new_tokens", True),
        ("limit", 0),
        ("limit", "all"),
        ("num_fewshot", -1),
        ("num_fewshot", None),
        ("subset_seed", -1),
        ("subset_seed", "x"),
        ("system_prompt", 1),
        ("data", ["a"]),
        ("prompt", "turns"),
        ("prompt", None),
        ("bos", "yes"),
        ("suffix", None),
        ("gen_prefix", 3),
        ("shots", "random"),
        ("shot_processes", 0),
        ("documents", "all"),
        ("documents", []),
        ("documents", [1, 1]),
        ("documents", [-1]),
    ],
)
def test_malformed_settings_name_their_key(key, value):
    with pytest.raises(ValueError, match=rf"^task\.{key}="):
        check_task(TaskConfig(**(GOOD | {key: value})))


texts = st.text("ab,: ", max_size=4)
anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_subnormal=False),
    texts,
    st.lists(st.none() | texts),
)


@settings(deadline=None, database=None)
@given(st.dictionaries(st.sampled_from(sorted(TaskConfig.__dataclass_fields__)), anything))
def test_no_settings_end_in_another_error(found):
    try:
        check_task(SimpleNamespace(**vars(TaskConfig(**(GOOD | found)))))
    except ValueError as error:
        assert str(error).startswith("task.")


# --- the package ---


def test_tasks_are_found_from_any_folder(tmp_path):
    """The YAML files name functions of the package: neither they nor it need a working directory."""
    code = "from unmask.tasks import prepare; print(len(prepare('chain_sum')[1]['chain_sum'].eval_docs))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "1000\n", done.stderr


def test_there_is_no_python_among_the_configurations():
    assert not [path for path in (ROOT / "eval_config").rglob("*.py*")]


# --- tasks that find their documents themselves ---


@pytest.fixture
def foreign(tmp_path, monkeypatch, write):
    """A task of lm-eval's own kind, in a project of its own: no custom_dataset of ours."""
    rows = write(tmp_path / "rows.jsonl", [{"question": "1+1?", "answer": "2"}])
    folder = tmp_path / "eval_config" / "tasks"
    folder.mkdir(parents=True)
    (folder / "sums.yaml").write_text(
        f"task: sums\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {rows}}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: question\ndoc_to_target: answer\n"
    )
    monkeypatch.setattr("unmask.tasks.CONFIGURATIONS", folder.parent)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return "sums"


def test_a_task_that_reads_its_own_documents_is_asked_on_its_own_split(foreign):
    (task,) = prepare(foreign, split="test")[1].values()
    assert list(task.eval_docs) == [{"question": "1+1?", "answer": "2"}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "train"}, "task.split=train: task sums.*always asks split test"),
        ({"data": "x"}, "task.data=x"),
    ],
)
def test_settings_that_such_a_task_would_ignore_are_refused(foreign, options, message):
    with pytest.raises(ValueError, match=message):
        prepare(foreign, **options)
