"""The code of docs/extending.md, used as the page says: from a folder outside of the checkout."""

import json
import re

import pytest
import yaml

import eval as eval_door
import report
from unmask.paths import ROOT
from unmask.report.definition import define
from unmask.testing.check import check_decoder

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"```(python|yaml)\n(.*?)```", PAGE, re.DOTALL)
YAML = {found[1]: text for kind, text in BLOCKS if (found := re.search(r"# (\w+/\w+)\.yaml", text))}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The page's decoder, task and figure in a folder; returns the words that name it."""
    (tmp_path / "bold.py").write_text(next(text for kind, text in BLOCKS if "class Bold" in text))
    for name in ("decoder/bold", "figure/bold"):
        file = tmp_path / "configurations" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(YAML[name])
    monkeypatch.syspath_prepend(tmp_path)
    return [f"hydra.searchpath=[file://{tmp_path / 'configurations'}]", f"results={tmp_path}", "threads=1"]


def test_a_decoder_from_outside_runs_and_keeps_its_promises(mine, run_command, monkeypatch):
    from bold import Bold

    check_decoder(Bold())
    check_decoder(Bold(threshold=0.3, fall=0.2))
    words = ["decoder=bold", "decoder.fall=0.1", "limit=2", "task.max_new_tokens=12", *mine]
    code, out, err = run_command(eval_door, *words)
    assert code == 0 and json.loads(out.splitlines()[-1])["n"] == 2, err
    code, out, err = run_command(eval_door, "decoder=bold", "decoder.rise=1", *mine)
    assert code == 2 and "rise" in err


def test_a_figure_from_outside_is_run_and_drawn(mine, run_command):
    few = ["figure=bold", "limit=1", "arm=bold", "model=tiny_llada", "task.max_new_tokens=8", *mine]
    for door in (eval_door, report):
        code, _, err = run_command(door, *few)
        assert code == 0, err


def test_the_task_of_the_page_is_one(tmp_path):
    from lm_eval.tasks import TaskManager

    (tmp_path / "orders.jsonl").write_text('{"question": "Two and two?", "answer": "4"}\n')
    text = YAML["tasks/orders"].replace("ORDERS.jsonl", str(tmp_path / "orders.jsonl"))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "orders.yaml").write_text(text)
    task = TaskManager(include_path=tmp_path / "tasks", include_defaults=False).load("orders")["tasks"][
        "orders"
    ]
    assert task.doc_to_text(task.eval_docs[0]) == "Two and two?"
    metric = yaml.safe_load(YAML["task/orders"])["metric"]
    assert metric == f"exact_match,{task.config.filter_list[0]['name']}"


def test_the_figure_of_the_page_is_defined():
    draw = yaml.safe_load(YAML["figure/bold"])["draw"]
    assert define("bold", draw).measures == draw["measures"]
