"""What every objective is: a module that owns its models, knows which of them is trained, and returns a
loss."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from unmask.training.data import Batch
from unmask.training.lora import adapter_off, has_adapter

STUDENT = "student"


class Objective(nn.Module):
    """A loss and the models that it needs, by role. DistributedDataParallel wraps it; the optimizers see
    `trained`.

    To add one, write a file in unmask/training/objectives/ and name its class in OBJECTIVES (__init__.py):

        class Distillation(Objective):
            roles = {"student": "diffusion", "teacher": "diffusion"}

            @dataclass(frozen=True)
            class Options:
                temperature: float = 1.0                    # a recipe's objective_options, checked by type

            def forward(self, batch, generator):
                with self.frozen("teacher") as teacher:     # no gradient
                    wanted = teacher(batch.ids).logits
                return distance(self.student(batch.ids).logits, wanted, self.options.temperature)

    roles: the models that it needs, "diffusion", "causal" or "drafter" by role. The student is trained; all
        others are frozen: never trained, always in eval mode, part of no checkpoint. train.py loads them as
        the recipe says (`frozen`).
    """

    roles: ClassVar[Mapping[str, str]] = {STUDENT: "diffusion"}
    student: nn.Module

    @dataclass(frozen=True)
    class Options:
        """None."""

    def __init__(self, models: Mapping[str, nn.Module], **options):
        """models: by role. A frozen role that is missing is the student with its adapter switched off.

        ValueError where a model is missing, or an option is out of its range.
        """
        super().__init__()
        self.options = self.Options(**options)
        for role in self.roles:
            if role in models:
                self.add_module(role, models[role])
            elif role == STUDENT or not has_adapter(models[STUDENT]):
                raise ValueError(f"{type(self).__name__} needs a model for the role {role!r}")
        for role in self.frozen_roles & self._modules.keys():
            self._modules[role].requires_grad_(False)
        self.train()

    def forward(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """The loss of one batch, a scalar. All noise comes from `generator`, which is on the CPU."""
        raise NotImplementedError

    @property
    def frozen_roles(self) -> set[str]:
        return self.roles.keys() - {STUDENT}

    @contextmanager
    def frozen(self, role: str) -> Iterator[nn.Module]:
        """The model of a frozen role, in eval mode and without gradients.

        (`self.target` is the same module with gradients through it, as a shared output head needs them.)
        """
        with torch.no_grad():
            if role in self._modules:
                yield self._modules[role]
            else:
                with adapter_off(self.student):
                    yield self.student

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name: what an optimizer and a checkpoint get."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def train(self, mode: bool = True) -> Objective:
        """Training mode for the student alone."""
        super().train(mode)
        for role in self.frozen_roles & self._modules.keys():
            self._modules[role].eval()
        return self

    def frozen_digest(self) -> str | None:
        """12 hex digits of all weights that are not trained; None where there are none."""
        frozen = [p for p in self.parameters() if not p.requires_grad]
        if not frozen:
            return None
        digest = hashlib.sha256()
        for parameter in frozen:
            digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:12]
