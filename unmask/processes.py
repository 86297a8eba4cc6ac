"""The processes that share a training (torchrun), in the words of torch's DistributedDataParallel."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from unmask.models.resources import choose_device


@dataclass(frozen=True)
class Processes:
    """This process among those that train together. Without torchrun it is alone.

    rank: its number, from 0. world_size: how many there are. device: where it computes.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world_size: int = 1

    @classmethod
    def join(cls, device: str = "auto") -> Processes:
        """Joins the process group that torchrun's environment variables describe. ValueError for a device
        that there is not, or variables that are no numbers."""
        world_size, rank, local_rank = (
            _environment(name, default)
            for name, default in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))
        )
        chosen = choose_device(device)
        if chosen.type == "cuda" and world_size > 1:
            chosen = torch.device("cuda", local_rank)
            torch.cuda.set_device(chosen)
        if world_size > 1 and not dist.is_initialized():
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

    def mean(self, value: float) -> float:
        """The mean of a number over all processes: for each of them the same."""
        if self.world_size == 1:
            return value
        exact = torch.float64 if self.device.type == "cpu" else torch.float32
        shared = torch.tensor(value, dtype=exact, device=self.device)
        dist.all_reduce(shared)
        return shared.item() / self.world_size


def _environment(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise ValueError(f"{name}={value!r} in the environment is no number: torchrun sets it, or unset it")
    return int(value)
