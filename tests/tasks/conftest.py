"""What the tests of the tasks share: lm-eval with a scripted model, and files of documents.

Rows of GSM8K and HumanEval are read from ../shared/data where that exists and are never copied here; all
other problems are our own.
"""

import json
import os
from pathlib import Path

import lm_eval.evaluator
import pytest
from lm_eval import simple_evaluate
from lm_eval.api.model import TemplateLM

from unmask.paths import ROOT
from unmask.tasks import prepare


class Scripted(TemplateLM):
    """Answers each request with what `script` says to its document, and keeps the last chat in `chat`."""

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


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    """lm-eval runs `pip list` for every evaluation."""
    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda storage: None)


@pytest.fixture
def shared():
    """The folder with the published test sets."""
    folder = Path(os.environ.get("UNMASK_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no ../shared/data")
    return folder


@pytest.fixture
def scripted():
    return Scripted


@pytest.fixture
def evaluate():
    """evaluate(name, script, data, split=..., num_fewshot=..., **options of simple_evaluate) -> its
    results."""

    def run(name, script, data=None, split="test", num_fewshot=0, **options):
        manager, tasks = prepare(name, data and str(data), True, split, num_fewshot)
        return simple_evaluate(
            script if isinstance(script, Scripted) else Scripted(script),
            tasks=list(tasks.values()),
            task_manager=manager,
            bootstrap_iters=0,
            confirm_run_unsafe_code=True,
            **options,
        )

    return run


@pytest.fixture
def outcome(evaluate):
    """outcome(name, script, data) -> {filter: [(extracted, score), ...]} of a task with one metric."""

    def run(name, script, data=None, **options):
        found = {}
        for sample in evaluate(name, script, data, **options)["samples"][name]:
            (metric,) = sample["metrics"]
            (extracted,) = sample["filtered_resps"]
            found.setdefault(sample["filter"], []).append((extracted, sample[metric]))
        return found

    return run


@pytest.fixture
def write():
    """write(path, rows) -> the path of a JSON lines file."""

    def run(path, rows):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return run
