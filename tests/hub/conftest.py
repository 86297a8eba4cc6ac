"""A Hub cache with the published names, and commands that read it without a network."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unmask.paths import ROOT

_spec = importlib.util.spec_from_file_location("make_hub", Path(__file__).with_name("make_hub.py"))
make_hub = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_hub)


@pytest.fixture(scope="module")
def hub(request, tmp_path_factory):
    """The cache that the module's MAKES names, a function of make_hub.py, and rows of the data sets."""
    home = tmp_path_factory.mktemp("hub")
    getattr(make_hub, request.module.MAKES)(home)
    make_hub.write_rows(home / "rows")
    return home


@pytest.fixture
def run():
    """run(hub, word, ...): a command in a process of its own, offline on that cache."""

    def command(hub, *words, program="eval.py", **environment):
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(hub), "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
        argv = [sys.executable, *([program] if isinstance(program, str) else program), *words]
        env = os.environ | offline | environment
        return subprocess.run(argv, cwd=ROOT, text=True, capture_output=True, env=env)

    return command
