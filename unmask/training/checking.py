"""Whether the settings of a recipe can be: everything that is checked before a model is loaded, data are
generated or a file is written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers import PreTrainedTokenizerBase

from unmask.decoding.sampling import at_least_one
from unmask.paths import CONFIGURATIONS, ROOT, lookups, may_be_file, may_be_folder
from unmask.records import config_hash
from unmask.tasks import problems
from unmask.training import objectives
from unmask.training.data import Stream
from unmask.training.lora import Lora
from unmask.training.optimization import Schedule
from unmask.training.recipe import FREE, TrainConfig
from unmask.training.refusal import reason
from unmask.training.sources import ALL, HUB, RUN, check_name

MODEL = "model:"  # before a choice of eval.py's group `model`
DTYPES = ("auto", "float32", "bfloat16")


def read(cfg: DictConfig) -> TrainConfig:
    """The settings as their dataclass, checked as far as no model is needed; ValueError naming the one that
    is wrong."""
    try:
        found = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key or 'recipe'}: {reason(error)}") from error
    if found.lora is not None:
        found.lora = Lora.of(found.lora)
    check(found)
    return found


def check(cfg: TrainConfig) -> None:
    """ValueError naming the setting that is wrong. Reads no model and writes nothing."""
    roles = objectives.find(cfg.objective).roles
    objectives.typed(cfg.objective, cfg.objective_options)
    at_least_one(
        tokens=cfg.tokens,
        batch_tokens=cfg.batch_tokens,
        accumulate=cfg.accumulate,
        canvas=cfg.canvas,
        threads=cfg.threads,
        max_new_tokens=cfg.max_new_tokens,
        validation_tokens=cfg.validation_tokens,
    )
    if not 0 <= cfg.validation_problems <= problems.HELD_OUT:
        raise ValueError(
            f"validation_problems={cfg.validation_problems} must be from 0 to {problems.HELD_OUT}"
        )
    if not 0 <= cfg.weight_decay < math.inf:
        raise ValueError(f"weight_decay={cfg.weight_decay} must be 0 or more")
    if not 0 < cfg.checkpoint_minutes < math.inf:
        raise ValueError(f"checkpoint_minutes={cfg.checkpoint_minutes} must be a number above 0")
    if not re.fullmatch(r"\w[\w.-]{0,99}", cfg.name):
        raise ValueError(
            f"name={cfg.name[:100]!r}: it names a folder: letters, digits, '.', '_' and '-', 100 at most"
        )
    if cfg.dtype == "float16":
        raise ValueError("dtype=float16 needs loss scaling, which this loop does not have: use bfloat16")
    if cfg.dtype not in DTYPES:
        raise ValueError(f"dtype={cfg.dtype[:100]!r} is not one of {', '.join(DTYPES)}")
    Schedule(cfg.lr, cfg.warmup, cfg.decay)
    check_mixture("mixture", cfg.mixture)
    if cfg.final_mixture is not None:
        check_mixture("final_mixture", cfg.final_mixture)
    cut = [name for name in (*cfg.mixture, *(cfg.final_mixture or {})) if name.startswith(ALL)]
    if cut and roles[objectives.STUDENT] == "diffusion":
        raise ValueError(
            f"mixture: {cut[0]}: a diffusion model learns where answers end, and these were cut off; "
            f"use {RUN}{cut[0].removeprefix(ALL)}"
        )
    if cfg.architecture is None and cfg.init_from is None:
        raise ValueError(
            "architecture and init_from are both null: describe a model, or name one to start from"
        )
    if cfg.init_from is not None:
        find_folder("init_from", cfg.init_from)
    frozen = sorted(roles.keys() - {objectives.STUDENT})
    if unknown := sorted(cfg.frozen.keys() - set(frozen)):
        raise ValueError(
            f"frozen: objective={cfg.objective} has no role {', '.join(unknown)}; "
            f"it has {', '.join(frozen) or 'none'}"
        )
    for role in frozen:
        if cfg.frozen.get(role) is not None:
            find_folder(f"frozen.{role}", cfg.frozen[role])
        elif roles[role] != roles[objectives.STUDENT]:
            raise ValueError(
                f"frozen.{role}: objective={cfg.objective} needs a {roles[role]} model: name its folder"
            )
    for key in ("folder", "output"):
        if getattr(cfg, key) is None:
            continue
        if (path := ROOT / getattr(cfg, key)) == ROOT or not may_be_folder(path):
            raise ValueError(f"{key}={getattr(cfg, key)[:100]!r}: is no folder of its own; name one")


def check_mixture(key: str, mixture: Mapping[str, float]) -> None:
    """ValueError unless all sources exist and their shares are a mixture."""
    for name, share in mixture.items():
        check_name(name)
        if not isinstance(share, (int, float)) or not 0 <= share < math.inf:
            raise ValueError(f"{key}: the share of {name} is {share!r}; it must be a number, 0 or more")
    if not sum(mixture.values()) > 0:
        raise ValueError(f"{key}: no source has a share; as in {key}={{gsm_symbolic: 0.8, drill: 0.2}}")


def find_folder(key: str, folder: str) -> Path | str:
    """A model's folder (a relative one is looked up in the project too), or of hub:NAME the name on the Hub,
    and of model:NAME itself; ValueError where there is no such folder or choice."""
    if folder.startswith(MODEL):
        if not key.startswith("frozen."):
            raise ValueError(f"{key}={folder}: only a frozen model may be a choice of eval.py; name a folder")
        name = folder.removeprefix(MODEL)
        if "/" in name or not may_be_file(file := CONFIGURATIONS / "model" / f"{name}.yaml"):
            raise ValueError(f"{key}={folder[:100]}: is no name of a model")
        if not file.is_file():
            raise ValueError(f"{key}={folder}: eval.py has no model={name}")
        return folder
    if folder.startswith(HUB):
        return folder.removeprefix(HUB)
    for path in lookups(folder):
        try:
            if (path / "config.json").is_file():
                return path
        except (OSError, ValueError):  # a name that is too long, or holds a zero byte
            break
    raise ValueError(
        f"{key}={folder[:100]}: no such model folder; "
        f"train it first (python train.py recipe={Path(folder).name[:100]})"
    )


def identity(cfg: TrainConfig, tokenizer: PreTrainedTokenizerBase, stream: Stream, processes: int) -> dict:
    """All that decides what the model becomes: a state of another identity does not resume."""
    settings = {key: value for key, value in asdict(cfg).items() if key not in FREE}
    data = {task: problems.fingerprint(task) for task in problems.WORKED} | stream.fingerprints
    return settings | {
        "accumulate": cfg.accumulate * processes,  # what a step is, however many processes share it
        "vocabulary": config_hash(tokenizer.get_vocab()),
        "data": data,
    }
