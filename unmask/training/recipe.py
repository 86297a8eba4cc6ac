"""What train.py is asked for: the settings of a recipe, typed and checked before anything is loaded or
written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers import PreTrainedTokenizerBase

from unmask.decoding.sampling import at_least_one
from unmask.paths import ROOT
from unmask.records import config_hash
from unmask.tasks import problems
from unmask.training import objectives
from unmask.training.data import Stream
from unmask.training.lora import Lora
from unmask.training.optimization import Schedule
from unmask.training.refusal import reason
from unmask.training.sources import ALL, HUB, RUN, check_name

MODEL = "model:"  # before a choice of eval.py's group `model`


@dataclass
class TrainConfig:
    """One training. What the second group says may change when it resumes; the first may not."""

    name: str = MISSING  # of the model
    # autoregressive | masked_diffusion | certainty_forcing | d2f | dflash: see unmask/training/objectives
    objective: str = MISSING
    objective_options: dict[str, Any] = field(default_factory=dict)  # the fields of its Options
    # transformers config fields, model_type among them; null: init_from's
    architecture: dict[str, Any] | None = None
    # a model of this architecture, to start from: a folder, or hub:NAME; null: from scratch
    init_from: str | None = None
    # {r, alpha, dropout, target_modules}: train a LoRA adapter and freeze all else; the result is merged.
    # null: train all weights
    lora: Any = None
    # folders of the objective's frozen models, by role. One left out is a frozen copy of the start (with
    # LoRA: the model itself with its adapter switched off). model:NAME: what eval.py loads for model=NAME
    frozen: dict[str, str | None] = field(default_factory=dict)
    # source -> share of the tokens: gsm_symbolic, chain_sum, drill; run:FOLDER, the answers of a run, or
    # correct:FOLDER, the right ones, or all:FOLDER, those that were cut off too; hub:NAME, a data set
    mixture: dict[str, float] = MISSING
    final_mixture: dict[str, float] | None = None  # what it becomes, linearly
    # masked diffusion: answers and the silence after them fill up to so many tokens
    canvas: int | None = None
    batch_tokens: int = 3000
    accumulate: int = 1  # batches of a step (for each process, under torchrun)
    lr: float = MISSING  # peak learning rate, of Muon and AdamW alike
    warmup: float = 0.02  # share of the tokens
    decay: float = 0.3  # share of the tokens
    weight_decay: float = 0.01
    seed: int = 0

    # in all; to extend or shorten it: the learning rate follows the new total from there on
    tokens: int = MISSING
    # how good it is by then: greedy answers to so many validation problems (0: never), every so many tokens
    validation_problems: int = 50
    validation_tokens: int = 2_000_000
    # decoders that validation watches, each "NAME KEY=VALUE ..." as in eval.py's decoder=NAME
    # decoder.KEY=VALUE; null: left to right, one token a step
    validation_decoders: list[str] | None = None
    max_new_tokens: int = 96  # new tokens of a validation answer
    device: str = "auto"
    dtype: str = "auto"  # of the forwards, under autocast: bfloat16 on CUDA, float32 on a CPU
    threads: int = 2
    checkpoint_minutes: float = 5.0
    # training state: weights, optimizers, position in the data, curve
    folder: str | None = None
    output: str = "checkpoints/${name}"  # the model, ready to load


FREE = (
    "tokens",
    "validation_problems",
    "validation_tokens",
    "validation_decoders",
    "max_new_tokens",
    "device",
    "dtype",
    "threads",
    "checkpoint_minutes",
    "folder",
    "output",
)

ConfigStore.instance().store("train_schema", TrainConfig)


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
    if not cfg.checkpoint_minutes > 0:
        raise ValueError(f"checkpoint_minutes={cfg.checkpoint_minutes} must be more than 0")
    if cfg.dtype == "float16":
        raise ValueError("dtype=float16 needs loss scaling, which this loop does not have: use bfloat16")
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
        place = ROOT / getattr(cfg, key)
        if place == ROOT or (place.exists() and not place.is_dir()):
            raise ValueError(f"{key}={getattr(cfg, key)!r}: is no folder of its own; name one")


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
        if not (ROOT / "eval_config" / "model" / f"{name}.yaml").is_file():
            raise ValueError(f"{key}={folder}: eval.py has no model={name}")
        return folder
    if folder.startswith(HUB):
        return folder.removeprefix(HUB)
    for place in (Path(folder), ROOT / folder):
        if (place / "config.json").is_file():
            return place
    raise ValueError(
        f"{key}={folder}: no such model folder; train it first (python train.py recipe={Path(folder).name})"
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
