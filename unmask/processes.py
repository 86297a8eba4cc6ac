"""The processes that share a training or an evaluation (torchrun, accelerate launch), in the words of torch's
DistributedDataParallel."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from unmask.models.resources import check_device, choose_device


@dataclass(frozen=True)
class Processes:
    """This process among those that work together. Without torchrun it is alone.

    rank: its number, from 0. world_size: how many there are. device: where it computes.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world_size: int = 1

    @classmethod
    def join(cls, device: str = "auto", on_host: bool = False) -> Processes:
        """Joins the process group that torchrun's environment variables describe: each process has the
        device of its own number. ValueError for a device that there is not, or variables that are no numbers.

        on_host: they exchange Python objects alone, and may wait for each other as long as an evaluation
            takes.
        """
        world_size, rank, local_rank = (
            _environment(name, default)
            for name, default in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))
        )
        chosen = check_device(choose_device(device))
        if chosen.type != "cpu" and world_size > 1:
            chosen = check_device(torch.device(chosen.type, local_rank))
            torch.accelerator.set_device_index(local_rank)
        if world_size > 1 and not dist.is_initialized():
            if on_host:
                dist.init_process_group("gloo", timeout=timedelta(days=30))
            else:
                dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        return cls(chosen, rank, world_size)

    def leave(self) -> None:
        """Leave the process group."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes and prints."""
        return self.rank == 0

    def gather(self, value: Any) -> list:
        """The values of all processes, in order, for each of them: whoever comes first waits for the last."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def mean(self, value: float) -> float:
        """The mean of a number over all processes: for each of them the same."""
        if self.world_size == 1:
            return value
        exact = torch.float64 if self.device.type == "cpu" else torch.float32
        shared = torch.tensor(value, dtype=exact, device=self.device)
        dist.all_reduce(shared)
        return shared.item() / self.world_size


def started() -> int:
    """How many processes torchrun, or accelerate launch, has started; 1 without them."""
    return _environment("WORLD_SIZE", 1)


def is_first() -> bool:
    """Whether this is the one process that prints, before it has joined the others."""
    return _environment("RANK", 0) == 0


def _environment(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise ValueError(f"{name}={value!r} in the environment is no number: torchrun sets it, or unset it")
    return int(value)
