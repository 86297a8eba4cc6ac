"""What a model is trained to do: a file per method, by the name that a recipe gives (`objective: NAME`)."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from omegaconf import OmegaConf, ValidationError

from unmask.training.objectives.autoregressive import Autoregressive
from unmask.training.objectives.certainty_forcing import CertaintyForcing
from unmask.training.objectives.d2f import D2F
from unmask.training.objectives.dflash import DFlash
from unmask.training.objectives.masked_diffusion import MaskedDiffusion
from unmask.training.objectives.objective import STUDENT, Objective
from unmask.training.refusal import reason

OBJECTIVES: dict[str, type[Objective]] = {
    "autoregressive": Autoregressive,
    "certainty_forcing": CertaintyForcing,
    "d2f": D2F,
    "dflash": DFlash,
    "masked_diffusion": MaskedDiffusion,
}

__all__ = ["OBJECTIVES", "STUDENT", "Objective", "find", "typed"]


def find(name: str) -> type[Objective]:
    """The class of an objective; ValueError for a name that there is not."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective={name!r} is not one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def typed(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of an objective, with their defaults; ValueError for an unknown one, or one of another type
    or range."""
    kind = find(name).Options
    known = [field.name for field in fields(kind)]
    if unknown := options.keys() - set(known):
        raise ValueError(
            f"objective_options: {name} has no {', '.join(sorted(unknown))}; "
            f"it has {', '.join(known) or 'none'}"
        )
    try:
        return asdict(OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), options)))
    except ValidationError as error:
        raise ValueError(f"objective_options.{error.full_key}: {reason(error)}") from error
