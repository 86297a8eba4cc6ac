"""A wheel, built offline, works where no checkout is."""

import json
import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from unmask.__main__ import DOORS, MODULES, main
from unmask.paths import ROOT
from unmask.records.environment import commit

SOURCE = ["unmask", "dream", "llada", "eval_config", "checkpoints"]
FILES = (
    "pyproject.toml requirements.txt README.md LICENSE harness.py eval.py train.py report.py demo.py bench.py"
)
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
BESIDE = {"unmask.eval_config", "unmask.checkpoints"}  # from the checkout's top


def test_every_package_is_listed():
    found = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for folder in ("unmask", "dream", "llada")
        for file in (ROOT / folder).rglob("*.py")
    }
    assert set(SETTINGS["packages"]) == found | BESIDE


def test_the_console_command_names_its_commands(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["unmask"])
    assert main() == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  unmask")]
    assert [line[1] for line in lines] == [*DOORS, *MODULES] and all(len(line) > 3 for line in lines)
    monkeypatch.setattr(sys, "argv", ["unmask", "evil"])
    assert main() == 2 and "there are eval, train" in capsys.readouterr().err


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that the wheel is installed into, of a copy of what it is built from."""
    pytest.importorskip("setuptools", "77")
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in SOURCE:
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in FILES.split():
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", source, "--no-deps", "--no-build-isolation", "--no-index", "-w", source / "dist"],
        check=True,
    )
    (wheel,) = (source / "dist").iterdir()
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", site, wheel], check=True)
    return site


@pytest.mark.slow
def test_a_wheel_evaluates_reports_and_says_which_code_it_is(installed, tmp_path):
    def unmask(*words, code=0):
        command = [sys.executable, "-m", "unmask", *words]
        environment = os.environ | {"PYTHONPATH": str(installed)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
        assert done.returncode == code, done.stderr
        return done.stdout

    for folder in ("eval_config", "checkpoints", "report", "page"):
        theirs = installed / "unmask" / folder
        ours = ROOT / ("unmask" if folder in ("report", "page") else "") / folder
        kept = (".py", ".yaml", ".csv", ".js", ".css", ".j2", ".safetensors", ".json")
        files = {file.relative_to(ours) for file in ours.rglob("*") if file.suffix in kept}
        assert files == {file.relative_to(theirs) for file in theirs.rglob("*") if file.suffix in kept}
    assert (installed / "bin" / "unmask").exists() and "unmask eval" in unmask()
    assert "apd" in unmask("eval", "--help") and "recipe" in unmask("train", "--help")
    unmask("nothing", code=2)
    small = ["limit=1", "warm_up=0", "task.max_new_tokens=24", "threads=1"]
    headline = json.loads(unmask("eval", *small).splitlines()[-1])
    (run,) = (tmp_path / "results").iterdir()
    assert headline["n"] == 1 and headline["run"] == str(run)
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert samples[0]["commit"] == commit()  # the same code, wherever it lies
    unmask("report", "page=true")
    assert (tmp_path / "results" / "figures" / "page" / "index.html").exists()
