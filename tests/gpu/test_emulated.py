"""The tests of a GPU (`pytest -m gpu`) on an emulated one, in a process of its own."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from unmask.paths import ROOT

HERE = ROOT / "tests" / "gpu"


def emulated(*arguments, **environment):
    """A command on the emulated device."""
    return subprocess.run(
        [sys.executable, HERE / "emulated.py", *map(str, arguments)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env=os.environ | environment,
    )


@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulated device needs g++")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real one")
def test_all_tests_of_a_gpu_pass_on_an_emulated_one():
    done = emulated("-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "--durations=5", HERE)
    assert done.returncode == 0, done.stdout + done.stderr
