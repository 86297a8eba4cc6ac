"""Processes share a step: what torchrun starts, without the seconds that its launcher takes."""

import os
import socket
import sys

import pytest
import torch
from torch.multiprocessing import start_processes

import train

SHARED = ["architecture=null", "validation_problems=0", "tokens=4000", "batch_tokens=500", "threads=1"]
CASES = {
    "masked diffusion": ["recipe=tiny_dream"],
    "an adapter beside its teacher": [
        "recipe=tiny_qwen",
        "objective=distilled",
        "lora={r: 4, alpha: 4, dropout: 0.1, target_modules: [q_proj, o_proj]}",
    ],
}


def train_as(rank, port, folder, arguments):
    """One of two processes, with what torchrun puts into its environment."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    sys.argv = ["train.py", *arguments]
    with (folder / f"{rank}.txt").open("w") as sys.stdout:
        train.main()


@pytest.mark.parametrize("case", CASES)
def test_two_processes_compute_what_one_does_with_twice_the_batches(
    case, parent, tmp_path, run_command, small_chunks, distilled
):
    """DistributedDataParallel on two CPU processes (gloo): the losses and weights of accumulation on one."""
    shared = [*CASES[case], f"init_from={parent}", *SHARED]

    def folders(name):
        return [f"folder={tmp_path / name}", f"output={tmp_path / name / 'out'}"]

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    arguments = ["accumulate=2", *shared, *folders("two")]
    start_processes(train_as, (port, tmp_path, arguments), nprocs=2, start_method="fork")
    said = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert "2 x cpu" in said[0] and not said[1]  # one process speaks
    code, _, err = run_command(train, "accumulate=4", *shared, *folders("one"))
    assert code == 0, err
    one, two = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("one", "two"))
    assert one["steps"] == two["steps"] > 1 and one["seen"] == two["seen"]
    assert [row["loss"] for row in one["curve"]] == pytest.approx([row["loss"] for row in two["curve"]])
    assert one["trained"].keys() == two["trained"].keys()
    for name, weights in one["trained"].items():
        assert torch.allclose(weights, two["trained"][name], atol=1e-5), name
