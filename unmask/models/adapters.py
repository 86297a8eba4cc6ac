"""PEFT adapters: part of a model's settings, checked by name and merged into its weights at load."""

import json
from pathlib import Path

import torch
from transformers.utils.hub import cached_file


def adapter_folder(adapter: str, root: Path) -> Path:
    """Where an adapter's files are: a folder (relative ones are looked up in `root` too) or a Hub repository.

    ValueError where there is none.
    """
    for folder in (Path(adapter), root / adapter):
        if (folder / "adapter_config.json").is_file():
            return folder
    try:
        return Path(cached_file(adapter, "adapter_config.json")).parent
    except Exception as error:  # missing repository, no network: each its own type
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"adapter={adapter}: is no folder with an adapter_config.json and cannot be read from the "
            f"Hub ({reason})"
        ) from error


def check_targets(model: torch.nn.Module, folder: Path) -> None:
    """ValueError naming the target modules that an adapter names and the model lacks.

    PEFT adapts what it finds and says nothing of the rest, so that an adapter made for another layout would
    be applied in part.
    """
    targets = json.loads((folder / "adapter_config.json").read_text()).get("target_modules") or []
    if isinstance(targets, str):  # a regular expression: PEFT itself refuses one that fits nothing
        return
    names = [name for name, _ in model.named_modules()]
    if missing := [t for t in targets if not any(n == t or n.endswith(f".{t}") for n in names)]:
        last = sorted({n.rpartition(".")[2] for n in names if "proj" in n})
        raise ValueError(
            f"{folder}: the adapter's target modules {', '.join(sorted(missing))} are not in the "
            "model, which has "
            f"{', '.join(last)}: it was made for another layout"
        )


def merge(model: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """The model with the adapter's weights added to its own; ValueError where they do not belong together."""
    from peft import PeftModel  # takes a second: only where it is used

    check_targets(model, folder)
    return PeftModel.from_pretrained(model, folder).merge_and_unload()
