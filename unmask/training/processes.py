"""Where a process trains: its device, and its number among the processes that share the work (torchrun)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from unmask.models.resources import choose_device


@dataclass(frozen=True)
class Place:
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls, device: str = "auto") -> Place:
        """The place that torchrun gives this process, with the process group joined; alone without
        torchrun."""
        world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        chosen = choose_device(device)
        if chosen.type == "cuda" and world > 1:
            chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(chosen)
        if world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        return cls(chosen, rank, world)

    def leave(self) -> None:
        """Leave the process group."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """The one process that writes and prints."""
        return self.rank == 0

    def mean(self, value: float) -> float:
        """The mean of a number over all processes: for each of them the same."""
        if self.world == 1:
            return value
        exact = torch.float64 if self.device.type == "cpu" else torch.float32
        shared = torch.tensor(value, dtype=exact, device=self.device)
        dist.all_reduce(shared)
        return shared.item() / self.world
