"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft: train a large model's few added weights.

The adapter is put into the model's own modules, so the model keeps its class and decodes as before. With the
adapter switched off it is the model that it was: a frozen teacher without a second copy.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors.torch import save_file
from torch import nn

from unmask.models.adapters import WEIGHTS
from unmask.training.refusal import reason

ADAPTER = "default"  # transformers' name of a model's first adapter


@dataclass
class Lora:
    """r: rank. alpha: scale of the update, times 1/r. dropout: of what the adapter sees, in training.
    target_modules: names of the linear modules that get one, as the model's layers call them (q_proj, ...).
    merge: whether the trained model is written whole, with the adapter in its weights; false: the adapter
        alone (for `model.adapter=FOLDER` beside `model.path` of the model that it started from).
    """

    r: int = 32
    alpha: int = 32
    dropout: float = 0.0
    target_modules: list[str] = field(default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"])
    merge: bool = True

    @classmethod
    def of(cls, settings: Any) -> Lora:
        """From a recipe's settings; ValueError for an unknown one, or one of another type or range."""
        try:
            return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), settings))
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            known = ", ".join(field.name for field in fields(cls))
            raise ValueError(f"lora: {reason(error)} (its settings are {known})") from error

    def __post_init__(self):
        for name in ("r", "alpha"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be from 0 to below 1")
        if not self.target_modules:
            raise ValueError("target_modules is empty: name linear modules, as in [q_proj, v_proj]")


def add_adapter(model: nn.Module, lora: Lora) -> None:
    """Put a fresh adapter into the model and freeze all else. It starts as a change of nothing.

    ValueError naming the target modules that the model lacks: peft adapts what it finds and says nothing of
    the rest.
    """
    from peft import LoraConfig  # takes a second: only where it is used

    linear = {
        name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    if missing := sorted(set(lora.target_modules) - linear):
        raise ValueError(
            f"lora.target_modules: the model has no linear module {', '.join(missing)}; "
            f"it has {', '.join(sorted(linear))}"
        )
    settings = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.target_modules)
    )
    model.add_adapter(settings)  # transformers' own way to peft


def has_adapter(model: nn.Module) -> bool:
    return bool(getattr(model, "peft_config", None))


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """The model as it was before `add_adapter`, in eval mode."""
    training = model.training
    model.disable_adapters()
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        model.enable_adapters()


def save_adapter(model: nn.Module, base: str, folder: Path) -> None:
    """The adapter of a model in PEFT's two files, float16; `base` is the model that it belongs to."""
    config = model.peft_config[ADAPTER]
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(folder)
    tensors = model.get_adapter_state_dict(ADAPTER)
    halves = {f"base_model.model.{name}": tensor.half().cpu() for name, tensor in tensors.items()}
    save_file(halves, folder / WEIGHTS, {"format": "pt"})


def merged(model: nn.Module) -> nn.Module:
    """A copy of the model with its adapter added to its own weights, of the class that it had; the model
    itself where it has no adapter."""
    if not has_adapter(model):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    whole = copy.deepcopy(model)
    # peft's merge_and_unload belongs to its wrapper, which a model with an adapter of its own does not have:
    # the same steps.
    for name, module in list(whole.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            whole.set_submodule(name, module.get_base_layer())
    del whole.peft_config
    whole._hf_peft_config_loaded = False  # or save_pretrained would look for an adapter
    return whole
