"""PEFT adapters: part of a model's settings, checked by name and merged into its weights at load.

An adapter for a published layout names that layout's modules (LLaDA's attn_out, say): they are translated to
the ones that this project's model has.
"""

import copy
import re
from pathlib import Path

import torch
from safetensors import safe_open
from transformers.utils.hub import cached_file

from unmask.paths import hub_reason, lookups, may_be_folder

WEIGHTS = "adapter_model.safetensors"


def adapter_folder(adapter: str) -> Path:
    """Where an adapter's files are: a folder (looked up in the project too) or a Hub repository.

    A repository's files are fetched. ValueError where there is none.
    """
    for folder in lookups(adapter):
        if may_be_folder(folder) and (folder / "adapter_config.json").is_file():
            return folder
        if not may_be_folder(folder):  # a file, or no path at all: no name of the Hub either
            raise ValueError(f"adapter={adapter[:100]}: is no folder and no name of a Hub repository")
    try:
        cached_file(adapter, WEIGHTS)
        return Path(cached_file(adapter, "adapter_config.json")).parent
    except Exception as error:  # missing repository, no network: each its own type
        raise ValueError(
            f"adapter={adapter}: is no folder with an adapter_config.json and cannot be read from the "
            f"Hub ({hub_reason(error, adapter)})"
        ) from error


def translated(model: torch.nn.Module, folder: Path):
    """The adapter's peft configuration with the target modules as this model calls them.

    ValueError naming those that the model lacks: PEFT adapts what it finds and says nothing of the rest, so
    that an adapter made for another layout would be applied in part.
    """
    from peft import PeftConfig  # takes a second: only where it is used

    config = PeftConfig.from_pretrained(folder)
    targets = config.target_modules or []
    if isinstance(targets, str):  # a regular expression: PEFT itself refuses one that fits nothing
        return config
    modules = [name for name, _ in model.named_modules()]
    ours = {target: getattr(model, "published_modules", {}).get(target, target) for target in targets}
    if missing := [t for t, name in ours.items() if not any(f".{m}".endswith(f".{name}") for m in modules)]:
        last = sorted({module.rpartition(".")[2] for module in modules if "proj" in module})
        raise ValueError(
            f"{folder}: the adapter's target modules {', '.join(sorted(missing))} are not in the "
            "model, which has "
            f"{', '.join(last)}: it was made for another layout"
        )
    config.target_modules = set(ours.values())
    return config


def key_mapping(model: torch.nn.Module) -> dict[str, str]:
    """Regular expressions from the published names of an adapter's tensors to this model's."""
    layer = re.escape(getattr(model, "published_layer", ""))
    modules = getattr(model, "published_modules", {})
    return {
        rf"{layer}\.(\d+)\.{theirs}\.lora": rf"model.layers.\1.{ours}.lora"
        for theirs, ours in modules.items()
    }


def check(model: torch.nn.Module, folder: Path) -> None:
    """ValueError unless the adapter's modules and widths are this model's and its file is complete. The model
    may be on the meta device: only names and shapes are looked at."""
    config = translated(model, folder)
    modules, mapping = dict(model.named_modules()), key_mapping(model)
    if not (folder / WEIGHTS).is_file():
        return
    stored = set()
    with safe_open(folder / WEIGHTS, "pt") as file:
        for key in file.keys():  # noqa: SIM118  (no dict)
            name = key.removeprefix("base_model.model.")
            for theirs, ours in mapping.items():
                name = re.sub(theirs, ours, name)
            stored.add(name)
            module, _, side = name.rpartition(".lora_")
            if side != "A.weight":
                continue
            width = file.get_slice(key).get_shape()[1]
            found = getattr(modules.get(module), "in_features", None)
            if found != width:
                what = "has no such module" if found is None else f"has {found} there"
                raise ValueError(
                    f"{folder}: the adapter's {module} takes {width} features and the model {what}: it was "
                    "made for another base model"
                )
    if missing := sorted(tensors_of(model, config) - stored):
        raise ValueError(
            f"{folder / WEIGHTS}: lacks {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3:,} more' * (len(missing) > 3)}: the file is incomplete, or "
            "adapter_config.json is another adapter's"
        )


def tensors_of(model: torch.nn.Module, config) -> set[str]:
    """Names of the tensors that an adapter of this peft configuration has in this model."""
    from peft import PeftModel

    with torch.device("meta"):
        adapted = PeftModel(copy.deepcopy(model).to("meta"), config)
    names = {name.removeprefix("base_model.model.") for name, _ in adapted.named_parameters()}
    return {name.replace(".default", "") for name in names if ".lora_" in name}


def merge(model: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """The model with the adapter's weights added to its own; ValueError where they do not belong together."""
    from peft import PeftModel

    config = translated(model, folder)
    adapted = PeftModel.from_pretrained(model, folder, config=config, key_mapping=key_mapping(model) or None)
    return adapted.merge_and_unload()
