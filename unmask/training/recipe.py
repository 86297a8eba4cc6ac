"""What train.py is asked for: the settings of a recipe, typed. checking.py says
which of them can be. Imports no torch: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

DEFAULT = "tiny_qwen_large"  # the recipe of eval_config/train.yaml


@dataclass
class TrainConfig:
    """One training. What the second group says may change when it resumes; the first may not."""

    name: str = MISSING  # of the model
    # autoregressive (causal) | masked_diffusion, certainty_forcing, d2f (diffusion) | dflash (drafters)
    objective: str = MISSING
    objective_options: dict[str, Any] = field(default_factory=dict)  # options of the objective, by name
    # fields of a transformers config, model_type among them; null: those of init_from
    architecture: dict[str, Any] | None = None
    # model to start from: a folder, or hub:NAME; null: from scratch
    init_from: str | None = None
    # {r, alpha, dropout, target_modules, merge}: train a LoRA adapter, which is merged at the end, or with
    # merge=false written alone; null: all weights
    lora: Any = None
    # {role: model} of the objective's teacher or target: a folder, hub:NAME, or model:NAME (eval.py's
    # model=NAME). Left out: a frozen copy of the start (with LoRA: the model without its adapter)
    frozen: dict[str, str | None] = field(default_factory=dict)
    # {source: share of the tokens}: gsm_symbolic, chain_sum, drill, line_shuffle and others of parallelbench;
    # run:FOLDER (the answers of a run), correct:FOLDER (the right ones), all:FOLDER (also those that were cut
    # off); hub:NAME (a data set)
    mixture: dict[str, float] = MISSING
    final_mixture: dict[str, float] | None = None  # what the mixture becomes by the end, linearly
    # diffusion models: tokens of an answer and the end padding after it; of hub:NAME, longer
    # answers are left out
    canvas: int | None = None
    batch_tokens: int = 3000  # tokens of a batch, at most (one row may have more)
    accumulate: int = 1  # batches of a step, for each process
    lr: float = MISSING  # peak learning rate, of Muon and AdamW alike
    warmup: float = 0.02  # share of the tokens over which the learning rate rises
    decay: float = 0.3  # share of the tokens over which it falls
    weight_decay: float = 0.01  # of the layers' matrices
    seed: int = 0  # of weights, data, order and masks

    # training tokens in all; may change later: the learning rate follows the new total from there on
    tokens: int = MISSING
    # validation problems that are answered at each measurement; 0: none. Choose nothing on fewer than 500
    validation_problems: int = 500
    validation_tokens: int = 2_000_000  # training tokens between two measurements
    # decoders that answer, each "NAME KEY=VALUE ..." as in eval.py's decoder=NAME decoder.KEY=VALUE; null:
    # left to right, one token a step
    validation_decoders: list[str] | None = None
    max_new_tokens: int = 96  # new tokens of a validation answer, at most
    device: str = "auto"  # auto | cpu | cuda | ...: torch's name of a device
    # of the forwards, under autocast, and of frozen weights: bfloat16 on a GPU, float32 on a CPU
    dtype: str = "auto"
    # compute a layer's activations again in the backward pass instead of keeping them: a third more work, a
    # fraction of the memory; null: with LoRA
    checkpointing: bool | None = None
    threads: int = 2  # of torch
    checkpoint_minutes: float = 5.0  # minutes between two checkpoints
    # folder of the training's state (weights, optimizers, position in the data, curve); null:
    # runs/train/RECIPE
    folder: str | None = None
    output: str = "checkpoints/${name}"  # folder of the finished model


# settings that may change when a training resumes
FREE = (
    "tokens",
    "validation_problems",
    "validation_tokens",
    "validation_decoders",
    "max_new_tokens",
    "device",
    "dtype",
    "checkpointing",
    "threads",
    "checkpoint_minutes",
    "folder",
    "output",
)

ConfigStore.instance().store("train_schema", TrainConfig)
