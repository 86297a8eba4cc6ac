"""Sweeps over several processes (make cluster): the same answers as one after the other."""

import os
import subprocess
import sys

import pytest

from unmask.paths import ROOT
from unmask.records.run import find_runs

LAUNCHERS = {
    "joblib": ["hydra.launcher.n_jobs=2"],
    "ray": [
        "+hydra.launcher.ray.init.num_cpus=2",
        "+hydra.launcher.ray.init.include_dashboard=false",
    ],  # two workers
    "ray_cards": [  # a card for each setting, of two that this machine is said to have
        "+hydra.launcher.ray.init.num_cpus=2",
        "+hydra.launcher.ray.init.num_gpus=2",
        "+hydra.launcher.ray.remote.num_gpus=1",
        "+hydra.launcher.ray.init.include_dashboard=false",
        "device=cpu",
    ],
    "submitit_local": ["hydra.launcher.timeout_min=10"],  # what submitit_slurm does, without Slurm
}


def sweep(tmp_path, name, *launcher):
    """ids of every answer by tokens per step, and the processes that found them."""
    settings = [
        "decoder=leftright",
        "decoder.tokens_per_step=4,8",
        "limit=2",
        "threads=1",
        f"results={tmp_path / name}",
    ]
    settings += [f"hydra.sweep.dir={tmp_path / 'sweeps' / name}"]
    done = subprocess.run(
        [sys.executable, "eval.py", "-m", *settings, *launcher], cwd=ROOT, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    runs, problems = find_runs(tmp_path / name)
    assert not problems
    assert [run.info["status"] for run in runs] == ["finished"] * 2
    ids = {run.config["decoder"]["tokens_per_step"]: [s["ids"] for s in run.samples()] for run in runs}
    return ids, {run.info["pid"] for run in runs}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_over_processes_gives_the_same_answers(tmp_path, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    alone, _ = sweep(tmp_path, "alone")
    spread, processes = sweep(
        tmp_path, launcher, f"hydra/launcher={launcher.removesuffix('_cards')}", *LAUNCHERS[launcher]
    )
    assert spread == alone and alone.keys() == {4, 8}
    assert len(processes) == 2 and os.getpid() not in processes
