"""Where a sample comes from: machine and commit, without loading a framework."""

import importlib
import json
import re
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
    assert module.machine(SimpleNamespace(type="cuda")).startswith("NVIDIA H100, ")
    monkeypatch.setattr(module.socket, "gethostname", lambda: "another")
    assert module.machine()[-6:] != here[-6:] and module.machine()[:-6] == here[:-6]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder in which this module's file lies. `git(...)` runs there, `asked()` asks `commit` anew."""
    file = tmp_path / "repository" / "unmask" / "records" / "environment.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    monkeypatch.setattr(module, "__file__", str(file))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ("git", *who, *arguments)
        return subprocess.run(command, cwd=file.parents[2], capture_output=True, text=True, check=True).stdout

    def asked():
        module.commit.cache_clear()
        return module.commit()

    yield SimpleNamespace(folder=file.parents[2], git=git, asked=asked)
    module.commit.cache_clear()


def test_a_commit_is_marked_when_anything_but_results_differs(checkout):
    assert checkout.asked() is None, "outside git"
    checkout.git("init", "--quiet")
    checkout.git("commit", "--quiet", "--allow-empty", "-m", "another project")
    assert checkout.asked() is None, "installed somewhere inside another project's repository"
    checkout.git("add", ".")
    checkout.git("commit", "--quiet", "-m", "first")
    clean = checkout.asked()
    assert clean == checkout.git("rev-parse", "HEAD")[:12]
    for name in ("results", "figures"):
        (checkout.folder / name).mkdir()
        (checkout.folder / name / "new").write_text("")
    assert checkout.asked() == clean
    (checkout.folder / "unmask" / "decoder.py").write_text("")
    first = checkout.asked()
    assert re.fullmatch(rf"{clean}\+[0-9a-f]{{6}}", first)
    (checkout.folder / "unmask" / "records" / "environment.py").write_text("# another change")
    second = checkout.asked()
    assert second not in (first, clean), "two changed checkouts of one commit are two programs"
    (checkout.folder / "unmask" / "decoder.py").write_text("# a new file that goes on changing")
    assert checkout.asked() not in (first, second, clean)
    (checkout.folder / "unmask" / "records" / "environment.py").write_bytes(b"# \xe9")  # no UTF-8
    assert re.fullmatch(rf"{clean}\+[0-9a-f]{{6}}", checkout.asked())


def test_the_commit_is_asked_for_once(checkout):
    checkout.git("init", "--quiet")
    checkout.git("add", ".")
    checkout.git("commit", "--quiet", "-m", "first")
    loaded = checkout.asked()
    (checkout.folder / "changed").write_text("")
    assert module.commit() == loaded, "what changes on disk later is not what was loaded"
