"""Where a sample comes from: machine and commit, without loading a framework."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from unmask.records import environment

ROOT = Path(__file__).parents[2]
module = importlib.import_module("unmask.records.environment")


def test_environment_is_plain_json_and_imports_no_framework():
    seen = environment()
    assert json.loads(json.dumps(seen)) == seen
    assert seen["time"].endswith("+00:00") and seen["cores"] >= 1 and seen["packages"]["python"]
    assert seen["machine"] == module.machine()
    code = (
        "import sys, unmask.records, unmask.records.summary; "
        "print({'torch', 'hydra', 'lm_eval', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "set()"


def test_a_machine_is_its_processor_cores_and_host(monkeypatch):
    here = module.machine(torch.device("cpu"))
    assert here == module.machine() == f"{module._cpu()}, {module._cores()} cores, {here[-6:]}"
    assert re.fullmatch(r"[0-9a-f]{6}", here[-6:])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert module.machine(SimpleNamespace(type="cuda")) == here  # made elsewhere, and joined here
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert module.machine(SimpleNamespace(type="cuda")).startswith("NVIDIA H100, ")
    monkeypatch.setattr(module.socket, "gethostname", lambda: "another")
    assert module.machine()[-6:] != here[-6:] and module.machine()[:-6] == here[:-6]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small checkout in which this module's file lies. `write(name, text)` writes a file of it, `asked()`
    asks `commit` anew."""
    root = tmp_path / "repository"

    def write(name, text=""):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    def asked():
        module.commit.cache_clear()
        return module.commit()

    for name in ("unmask/records/environment.py", "unmask/decoding/apd.py", "llada/model.py", "eval.py"):
        write(name)
    write("eval_config/decoder/apd.yaml", "name: apd")
    monkeypatch.setattr(module, "__file__", str(root / "unmask/records/environment.py"))
    yield SimpleNamespace(root=root, write=write, asked=asked)
    module.commit.cache_clear()


def test_a_commit_is_of_the_code_and_of_nothing_beside_it(checkout):
    first = checkout.asked()
    assert re.fullmatch(r"[0-9a-f]{12}", first)
    for name in (
        *(
            "docs/apd.md",
            "README.md",
            "tests/test_new.py",
            "scripts/new.py",
            "results/a/run.json",
            "notes.py",
        ),
        *("eval_config/figure/new.yaml", "unmask/notes.txt", "unmask/decoding/__pycache__/apd.pyc"),
    ):
        checkout.write(name, "anything")
        assert checkout.asked() == first, name
    seen = {first}
    for name in (
        *("unmask/decoding/apd.py", "unmask/decoding/new.py", "dream/model.py", "llada/model.py", "eval.py"),
        *("eval_config/decoder/apd.yaml", "eval_config/model/new.yaml", "eval_config/tasks/new/utils.py"),
    ):
        checkout.write(name, "x = 1")
        assert checkout.asked() not in seen, name
        seen.add(checkout.asked())


def test_equal_code_has_equal_commits_in_git_or_not(checkout, tmp_path, monkeypatch):
    first = checkout.asked()
    copy = tmp_path / "copy of it"
    shutil.copytree(checkout.root, copy)
    monkeypatch.setattr(module, "__file__", str(copy / "unmask/records/environment.py"))
    assert checkout.asked() == first
    subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)
    assert checkout.asked() == first
    os.rename(copy / "unmask/decoding/apd.py", copy / "unmask/decoding/other.py")
    assert checkout.asked() != first, "a name is code as well"


def test_the_commit_is_asked_for_once(checkout):
    loaded = checkout.asked()
    checkout.write("unmask/decoding/apd.py", "changed")
    assert module.commit() == loaded, "what changes on disk later is not what was loaded"


def test_run_json_names_the_git_commit_for_people():
    seen = environment()
    assert {"git_commit", "git_dirty"} <= seen.keys()
