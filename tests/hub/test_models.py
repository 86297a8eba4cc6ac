"""Every model of docs/models.md answers GSM8K by its command, from a fake Hub and offline."""

import json
import re
from pathlib import Path

import pytest

from unmask.paths import ROOT
from unmask.records import Run

TEXT = (ROOT / "docs" / "models.md").read_text()
COMMANDS = dict(re.findall(r"^python eval\.py model=(\S+) (.+)$", TEXT[: TEXT.index("Other tasks")], re.M))
FAST = {"llada_moe"}  # the others take minutes together

MAKES = "make_models"


def test_every_model_of_the_table_has_a_command():
    table = TEXT[TEXT.index("## Sizes") : TEXT.index("## On a laptop")]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([\w.]+)`", row.split("|")[1])} == COMMANDS.keys()


def names():
    slow = pytest.mark.slow
    return [pytest.param(name, marks=() if name in FAST else slow) for name in COMMANDS]


@pytest.mark.parametrize("name", names())
def test_a_published_model_answers_from_the_hub(hub, run, tmp_path, name):
    words = [w for w in COMMANDS[name].split() if not w.startswith("limit=")]
    words += [f"model={name}", "limit=2", "warm_up=1", "threads=1", "task.max_new_tokens=64"]
    words += [f"results={tmp_path}", f"task.data={hub}/rows/gsm8k"]
    done = run(hub, *words)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["n"] == 2 and report["decoded_now"] == 2 and sum(report["forwards"].values()) > 2
    run = Run.read(Path(report["run"]))
    (model,) = run.config["models"].values()
    assert model["name"] == name and len(model["weights"]) == 40  # the commit of the fake repository
    assert all(0 < len(sample["ids"]) <= 64 for sample in run.samples())
