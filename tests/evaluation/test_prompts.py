"""What a model is asked: published prompts made anew, and what cannot be built is refused."""

import unmask  # noqa: F401, I001  (first: it quiets the libraries below)

import json
import re

import pytest

from unmask.configuration.schema import TaskConfig
from unmask.evaluation.command import evaluate
from unmask.evaluation.evaluation import Evaluation
from unmask.evaluation.prompts import PromptBuilder, shown
from unmask.paths import ROOT
from unmask.tasks import prepare
from unmask.testing import chat_templates
from unmask.testing.prompts import main

PROGRAM = {  # a document of HumanEval
    "task_id": "HumanEval/0",
    "prompt": "def half(x):\n",
    "canonical_solution": "    return x / 2\n",
    "test": "def check(candidate):\n    assert candidate(4) == 2\n",
    "entry_point": "half",
}
GOLDEN = ROOT / "tests" / "golden" / "prompts" / "prompts.jsonl"


def settings(**given):
    return TaskConfig(**({"name": "gsm8k", "metric": None, "max_new_tokens": 8} | given))


@pytest.fixture
def lines():
    return [json.loads(line) for line in GOLDEN.read_text().splitlines()]


def test_every_published_prompt_is_made_anew(capsys):
    pytest.importorskip("math_verify")  # the tasks of MATH are refused without it
    assert main([str(GOLDEN)]) == 0
    out = capsys.readouterr().out
    assert "from character" not in out  # not one differs, sure or not
    assert sum(map(int, re.findall(r"(\d+) +\d+ +0 +0", out))) == 345


@pytest.mark.parametrize(("sure", "code"), [(True, 1), ("the source is not known", 0)])
def test_a_prompt_that_differs_is_shown_and_fails_where_it_is_sure(tmp_path, capsys, lines, sure, code):
    line = next(line for line in lines if line["task"] == "gsm8k")
    line |= {"sure": sure, "text": line["text"].replace("Question:", "Query:")}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "rows.json").write_text(GOLDEN.with_name("rows.json").read_text())
    assert main([str(tmp_path / "prompts.jsonl")]) == code
    out = capsys.readouterr().out
    assert "published" in out and "Query:" in out and "Question:" in out


def test_what_is_no_file_of_prompts_is_refused(tmp_path, capsys):
    (tmp_path / "bad.jsonl").write_text("{")
    for name in ("bad.jsonl", "absent.jsonl"):
        with pytest.raises(SystemExit) as refused:
            main([str(tmp_path / name)])
        assert refused.value.code == 2
        assert name in capsys.readouterr().err


def test_examples_are_drawn_anew_for_every_document_of_a_process(tmp_path):
    for split, count in (("test", 6), ("train", 7473)):
        rows = [{"question": f"{split} {i}?", "answer": f"#### {i}"} for i in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (task,) = prepare("gsm8k", str(tmp_path), num_fewshot=4, shots="drawn")[1].values()
    base = chat_templates.tokenizer(chat_templates.BASE)

    def drawn(**given):
        found = PromptBuilder(settings(prompt="text", num_fewshot=4, **given), base).requests(task)
        return [[int(row) for row in re.findall(r"train (\d+)", r.args[0])] for r in found]

    # lm-eval's draws, see ../shared/published_settings.md
    first, second = [6374, 3610, 957, 61], [742, 7462, 6610, 4769]
    assert drawn(shots="drawn")[:2] == [first, second]
    assert drawn(shots="drawn", shot_processes=4)[2:5] == [first, first, second]
    assert drawn(shots="drawn_twice", shot_processes=4)[:4] == [second] * 4
    assert drawn(shots="first")[3] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("given", "template", "message"),
    [
        ({"prompt": "chat"}, chat_templates.BASE, "task.prompt=chat: .*no chat template.*task.prompt=text"),
        (
            {"prompt": "text", "system_prompt": "Be brief."},
            chat_templates.BASE,
            "task.prompt=text: has no system",
        ),
        ({"bos": True}, chat_templates.QWEN3, "task.bos=true: .*no start token"),
    ],
)
def test_what_the_tokenizer_lacks_is_refused(given, template, message):
    with pytest.raises(ValueError, match=message):
        PromptBuilder(settings(**given), chat_templates.tokenizer(template))


def test_the_first_prompts_are_shown_with_their_ids_and_no_weights(tmp_path):
    evaluation = Evaluation.of(
        "model=tiny_dream",
        "decoder=leftright",
        "task=chain_sum",
        "task.prompt=one_turn",
        "task.gen_prefix='{{question[:5]}}'",
        "task.suffix=' Go.'",
        "limit=5",
        f"run_folder={tmp_path / 'run'}",
    )
    first, second = shown(evaluation.requests, evaluation.main.tokenizer, 2)
    number = evaluation.requests[0].doc_id
    assert first.startswith(f"document {number} of chain_sum, ")
    assert " Go.<|im_end|>\n<|im_start|>assistant\n" + evaluation.requests[0].doc["question"][:5] in first
    assert first != second
    assert "models" not in vars(evaluation.lm)


@pytest.mark.parametrize(
    ("words", "blocks"),
    [
        (["task=chain_sum", "limit=5"], 3),
        (["task=chain_sum", "limit=2", "seed=0,1"], 2),  # equal ones once
        (["task=chain_sum,gsm_symbolic"], 6),
        (["task=humaneval", "task.data=@humaneval"], 1),  # nothing runs code here
    ],
)
def test_show_prints_prompts_reads_no_weights_and_writes_nothing(
    words, blocks, tmp_path, capsys, monkeypatch
):
    def refuse(*args, **options):
        raise AssertionError("weights were read")

    for name in ("unmask.models.loading.fingerprint", "unmask.models.loading.load_weights"):
        monkeypatch.setattr(name, refuse)
    (tmp_path / "one.jsonl").write_text(json.dumps(PROGRAM) + "\n")
    words = [word.replace("@humaneval", str(tmp_path / "one.jsonl")) for word in words]
    evaluate(["model=tiny_dream", "show=prompt", f"results={tmp_path / 'results'}", *words])
    out = capsys.readouterr().out
    assert len(re.findall(r"^document \d+ of \w+, \d+ ids$", out, re.MULTILINE)) == blocks
    assert out.count("<|im_start|>assistant") == blocks and not (tmp_path / "results").exists()


@pytest.fixture
def conversations(tmp_path):
    rows = [{"turns": [f"What is {i} + {i}?", f"And {i} - {i}?"]} for i in range(3)]
    path = tmp_path / "conversations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "model=tiny_qwen_large",
        "decoder=autoregressive",
        "task=speed_mt_bench",
        f"task.data={path}",
        "task.max_new_tokens=12",
        "warm_up=1",
        "threads=1",
        f"run_folder={tmp_path / 'run'}",
    ]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_second_turn_sees_the_models_own_first_answer_and_nothing_is_scored(conversations, batch_size):
    evaluation = Evaluation.of(*conversations, f"batch_size={batch_size}")
    with evaluation.run:
        summary = evaluation.score()
    assert summary["n"] == 6 and summary["metric"] is None and summary["accuracy"] is None
    samples = {sample["doc_id"]: sample for sample in evaluation.run.samples()}
    for request in evaluation.requests:
        number = request.doc_id
        prompt = evaluation.lm.asked(request)
        assert len(evaluation.lm.tok_encode(prompt)) == samples[number]["prompt_length"]
        assert "ANSWER_OF_TURN" not in prompt
        if number % 2:
            chat = f"<|im_start|>assistant\n{samples[number - 1]['text']}<|im_end|>\n<|im_start|>user\nAnd"
            assert chat in prompt
    assert not evaluation.run.metrics
    assert Evaluation.of(*conversations, f"batch_size={batch_size}").missing == []


def test_a_second_turn_without_its_first_is_refused(conversations):
    for setting in ("task.documents=[1]", "shard=2/2"):
        with pytest.raises(ValueError, match="document 1 of speed_mt_bench is asked after .* document 0"):
            Evaluation.of(*conversations, setting)


def test_a_task_without_a_score_takes_no_metric(conversations):
    with pytest.raises(ValueError, match="speed_mt_bench has no score: set it to null"):
        Evaluation.of(*conversations, "task.metric='exact_match,none'")
