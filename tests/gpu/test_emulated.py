"""The tests of a GPU (`pytest -m gpu`) on an emulated one, in a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

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
@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_all_tests_of_a_gpu_pass_on_an_emulated_one(which):
    done = emulated("-m", "pytest", "-m", f"gpu and {which}", "-p", "no:cacheprovider", HERE)
    assert done.returncode == 0, done.stdout + done.stderr


def processes_of(parent):
    """Process ids of its children, by the card that each sees."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                environment = dict(
                    each.split(b"=", 1) for each in (folder / "environ").read_bytes().split(b"\0")[:-1]
                )
                found[environment[b"CUDA_VISIBLE_DEVICES"].decode()] = int(folder.name)
        except (OSError, KeyError):  # ended meanwhile, or not there yet
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulated device needs g++")
def test_one_of_four_cards_is_killed_and_the_same_command_finishes(tmp_path):
    words = ["eval.py", "gpus=all", "decoder=leftright", "task.max_new_tokens=12", "limit=12", "warm_up=0"]
    words = [sys.executable, HERE / "emulated.py", *words, f"run_folder={tmp_path / 'run'}"]
    options = {"cwd": ROOT, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    options["env"] = os.environ | {"EMULATED_DEVICES": "4", "OMP_NUM_THREADS": "1"}
    shards = [tmp_path / "run.shards" / f"{i}-of-4" / "samples.jsonl" for i in (1, 2, 3, 4)]
    lines = lambda path: path.read_bytes().splitlines() if path.exists() else []  # noqa: E731

    command = subprocess.Popen(words, **options)
    while len(lines(shards[2])) < 1:
        assert command.poll() is None, command.communicate()
        time.sleep(0.05)
    children = processes_of(command.pid)
    os.kill(children["2"], signal.SIGKILL)
    _, err = command.communicate()
    assert sorted(children) == ["0", "1", "2", "3"]  # a card each
    assert command.returncode == 1 and "card 2 (shard 3/4) ended with signal 9" in err
    before = list(map(lines, shards))
    assert [len(each) for each in before] == [3, 3, len(before[2]), 3] and 1 <= len(before[2]) < 3

    done = subprocess.run(words, **options)
    assert done.returncode == 0, done.stderr
    headline = json.loads(done.stdout.splitlines()[-1])
    assert headline["n"] == 12 and headline["decoded_now"] == 0  # here: by the cards' processes
    after = list(map(lines, shards))
    assert [new[: len(old)] for new, old in zip(after, before, strict=True)] == before  # nothing twice
    joined = [json.loads(line) for line in lines(tmp_path / "run" / "samples.jsonl")]
    assert len({sample["doc_id"] for sample in joined}) == len(joined) == 12
