"""Every command of the README runs: on the shipped models, at the smallest limits that it allows."""

import json
import re
import runpy
import shlex
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

from unmask.paths import ROOT

TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("python ")
]
SMALL = {  # what is added, so that a command ends soon and writes nothing into the project
    "eval.py": "limit=1 warm_up=0 task.max_new_tokens=48 threads=1 results={tmp}/results",
    "report.py": "limit=1 task.max_new_tokens=48 threads=1 results={tmp}/results",
    "page": "results={tmp}/results",  # of report.py: it shows all runs that the commands before it made
    "demo.py": "task.max_new_tokens=48 threads=1",
    "bench.py": "prompts=16 rounds=1 tokens=2 profile=false threads=1",
    "train.py": "tokens=2000 validation_problems=0 threads=1 folder={tmp}/state output={tmp}/model",
}


def test_the_readme_fits_a_screen_or_three():
    assert len(TEXT.split()) <= 800
    assert len(COMMANDS) >= 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(command, folder, monkeypatch, capsys):
    _, program, *arguments = shlex.split(command)
    if program == "-m":
        pytest.skip("the golden traces have a test of their own")
    if "--help" not in arguments:
        small = SMALL["page" if "page=true" in arguments else program]
        arguments += small.format(tmp=folder).split()
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.chdir(ROOT)
    GlobalHydra.instance().clear()
    try:
        runpy.run_path(str(ROOT / program), run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, capsys.readouterr().err
    out = capsys.readouterr().out
    assert out
    if program in ("eval.py", "bench.py", "report.py") and "--help" not in arguments:
        json.loads(out.splitlines()[-1])


def test_files_that_the_documents_link_to_exist():
    for document in [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / ".github" / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "results").rglob("README.md"),
        *(ROOT / "checkpoints").rglob("README.md"),
    ]:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in link:
                assert (document.parent / link).exists(), f"{document.relative_to(ROOT)}: {link}"
