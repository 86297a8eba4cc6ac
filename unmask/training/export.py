"""A trained model as a Hugging Face folder, with what its training was beside it (training.json)."""

from __future__ import annotations

import json
import os
import tempfile
from io import StringIO
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from unmask.records import environment
from unmask.report.learning import learning_curve
from unmask.training.loop import Trainer
from unmask.training.lora import merged, save_adapter
from unmask.training.objectives import STUDENT

TOTALS = ["step", "tokens", "seconds"]  # columns of the curve that a second recipe goes on counting


def earlier(init_from: Path | str | None, name: str) -> dict | None:
    """training.json of the recipe before this one, where init_from is this same model after it.

    ValueError where it holds no curve to go on with.
    """
    if init_from is None or not (Path(init_from) / "training.json").exists():
        return None
    record = json.loads((init_from / "training.json").read_text())
    if record["settings"]["name"] != name:
        return None
    if "curve" not in record:
        raise ValueError(f"init_from={init_from}: training.json has no curve: an older version made it")
    return record


def export(trainer: Trainer, tokenizer: PreTrainedTokenizerBase, recipe: str, output: Path) -> None:
    """Write the student, its tokenizer (a drafter has none), training.json, the learning curve to `output`.

    training.json holds the curve too, as lines of CSV. The weights are float16 on disk: small, and loaded as
    float32 on a CPU. An adapter is merged into them, or is all that is written (`lora.merge`). Each
    file replaces the one that was there when all are written.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".partial-") as partial:
        _write(trainer, tokenizer, recipe, Path(partial))
        for file in Path(partial).iterdir():
            os.replace(file, output / file.name)


def _write(trainer: Trainer, tokenizer: PreTrainedTokenizerBase, recipe: str, folder: Path) -> None:
    lora, student = trainer.settings.get("lora"), trainer.objective.student
    if lora and not lora["merge"]:
        save_adapter(student, trainer.settings["init_from"], folder)
    else:
        _write_whole(merged(student), folder)
        if trainer.objective.roles[STUDENT] != "drafter":  # a drafter's is its target's
            tokenizer.save_pretrained(folder, save_jinja_files=False)
    record = {
        "recipe": recipe,
        "settings": trainer.settings,
        "parameters": sum(p.numel() for name, p in student.named_parameters() if "lora_" not in name),
        "trained_parameters": sum(p.numel() for p in trainer.trained.values()),
        "tokens": trainer.seen,
        "steps": trainer.steps,
        "seconds": round(trainer.seconds),
        "sessions": trainer.sessions,
        "environment": environment(),
    }
    curve = pd.read_csv(trainer.folder / "curve.csv")
    if trainer.earlier:
        record["earlier"] = {key: value for key, value in trainer.earlier.items() if key != "curve"}
        before = curve_of(trainer.earlier)
        curve[TOTALS] += before[TOTALS].iloc[-1]
        curve = pd.concat([before, curve], ignore_index=True)
    record["curve"] = curve.to_csv(index=False).splitlines()
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    learning_curve(curve, folder / "learning_curve.png", documents(curve))


def _write_whole(model: nn.Module, folder: Path) -> None:
    halves: dict[int, torch.Tensor] = {}  # a tied tensor stays one tensor
    weights = {
        k: halves.setdefault(v.data_ptr(), (v.half() if v.is_floating_point() else v).cpu())
        for k, v in model.state_dict().items()
    }
    model.save_pretrained(folder, state_dict=weights)
    (folder / "generation_config.json").unlink(missing_ok=True)  # it says what config.json does


def curve_of(record: dict) -> pd.DataFrame:
    """The curve in a training.json: step, tokens, seconds, loss, lr, and what validation measured."""
    return pd.read_csv(StringIO("\n".join(record["curve"])))


def documents(curve: pd.DataFrame) -> int | None:
    """How many validation problems are behind every accuracy of a curve; None where that is not recorded, or
    not the same all along."""
    measured = curve[curve.accuracy.notna()]
    counts = set(measured.get("n", pd.Series([None] * len(measured))))
    return int(counts.pop()) if len(counts) == 1 and pd.notna(next(iter(counts))) else None
