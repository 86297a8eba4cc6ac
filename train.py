"""Train a model of the tiny family from nothing:  python train.py recipe=tiny_dream

A recipe (eval_config/recipe/) names the layout, the objective, the data mixture and the schedule. Training
checkpoints every few minutes and on Ctrl-C; the same command goes on from there, batch for batch. The result
is a Hugging Face folder in checkpoints/ that `eval.py model=...` loads like any other, with the learning
curve beside it.

    python train.py recipe=tiny_qwen_large            # 1. the causal parent
    python train.py recipe=tiny_dream                 # 2. adapted from it to masked diffusion
    python train.py recipe=tiny_dream_more            # 3. trained on, in a second plan
    python train.py recipe=tiny_qwen tokens=4_000_000 # any setting of the recipe can be given

On GPUs the same command trains in bfloat16 (autocast), and torchrun shares each step between processes:

    torchrun --nproc-per-node 4 train.py recipe=tiny_dream accumulate=2
"""

import unmask  # noqa: F401, I001  (first: it quiets the libraries below)

import inspect
import json
import sys
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import dream  # noqa: F401  (registers the published layouts with transformers)
import llada  # noqa: F401
from unmask.tasks import problems
from unmask.cli import door
from unmask.decoding.sampling import at_least_one
from unmask.models.loading import choose_dtype
from unmask.plots.learning import learning_curve
from unmask.records import config_hash, environment
from unmask.training import tokenizer as shared_tokenizer
from unmask.training.data import Stream
from unmask.training.loop import Place, Schedule, Trainer
from unmask.training.objectives import OBJECTIVES
from unmask.training.validation import Validation


@dataclass
class TrainConfig:
    name: str = MISSING
    objective: str = MISSING  # autoregressive | masked_diffusion
    objective_options: dict[str, Any] = field(default_factory=dict)  # its keyword arguments
    architecture: dict[str, Any] = MISSING  # transformers config fields, model_type among them
    init_from: str | None = None  # a checkpoint folder whose weights have the same names and shapes
    mixture: dict[str, float] = field(default_factory=dict)  # source -> share of the tokens
    final_mixture: dict[str, float] | None = None  # what it becomes, linearly
    canvas: int | None = (
        None  # masked diffusion: answers and the silence after them fill up to this many tokens
    )
    budget: int = 96  # new tokens of a validation answer
    tokens: int = MISSING  # training tokens in all
    batch_tokens: int = 3000
    lr: float = MISSING  # peak learning rate, of Muon and AdamW alike
    warmup: float = 0.02  # share of the tokens
    decay: float = 0.3  # share of the tokens
    weight_decay: float = 0.01
    seed: int = 0
    # how good it is by then: greedy answers to this many validation problems, every so many tokens; 0
    # problems: never
    validation_problems: int = 50
    validation_tokens: int = 2_000_000
    accumulate: int = 1  # batches of a step (for each process, under torchrun)
    device: str = "auto"
    dtype: str = "auto"  # of the forwards, under autocast: bfloat16 on CUDA, float32 on a CPU
    threads: int = 2
    checkpoint_minutes: float = 5.0
    folder: str = (
        "runs/train/${hydra:runtime.choices.recipe}"  # training state: model, optimizers, random state, curve
    )
    output: str = "checkpoints/${name}"  # the model, ready to load


ConfigStore.instance().store("train_schema", TrainConfig)

# What may change when a training resumes. `tokens` is among them, to extend or to shorten it: the learning
# rate then follows the new total from there on.
FREE = {
    "tokens",
    "threads",
    "device",
    "dtype",
    "checkpoint_minutes",
    "folder",
    "output",
    "budget",
    "validation_problems",
    "validation_tokens",
}


def build_model(cfg: TrainConfig, tokenizer) -> torch.nn.Module:
    """A freshly initialised model of the recipe's layout, with its parent's weights where it has one."""
    fields = dict(cfg.architecture)
    config = AutoConfig.for_model(
        fields.pop("model_type"),
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **fields,
    )
    if config.model_type in ("Dream", "llada"):
        config.mask_token_id = tokenizer.mask_token_id
    torch.manual_seed(cfg.seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if cfg.init_from:
        parent = AutoModelForCausalLM.from_pretrained(cfg.init_from, dtype=torch.float32)
        try:
            model.load_state_dict(parent.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"init_from={cfg.init_from} does not have this recipe's architecture ({error})"
            ) from error
    return model


def earlier(cfg: TrainConfig) -> dict | None:
    """Story and curve of the recipe before this one, where init_from is this same model after it."""
    story = Path(cfg.init_from or cfg.output) / "training.json"
    if cfg.init_from is None or not story.exists():
        return None
    told, curve = json.loads(story.read_text()), (story.parent / "learning_curve.csv").read_text()
    return {"story": told, "curve": curve} if told["settings"]["name"] == cfg.name else None


def export(trainer: Trainer, tokenizer, output: Path) -> None:
    """Write the model as a Hugging Face folder, float16 on disk: small, and loaded as float32 on a CPU."""
    model = trainer.model
    halves: dict[int, torch.Tensor] = {}  # a tied tensor stays one tensor
    weights = {k: halves.setdefault(v.data_ptr(), v.half()) for k, v in model.state_dict().items()}
    model.save_pretrained(output, state_dict=weights)
    tokenizer.save_pretrained(output)
    story = {"recipe": HydraConfig.get().runtime.choices["recipe"], "settings": trainer.settings}
    story |= {"parameters": sum(p.numel() for p in model.parameters())}
    story |= {"tokens": trainer.seen, "steps": trainer.steps, "seconds": round(trainer.seconds)}
    story |= {"sittings": trainer.sittings, "environment": environment()}
    curve = pd.read_csv(trainer.folder / "curve.csv")
    if trainer.earlier:
        story["earlier"], before = trainer.earlier["story"], pd.read_csv(StringIO(trainer.earlier["curve"]))
        totals = ["step", "tokens", "seconds"]
        curve[totals] += before[totals].iloc[-1]
        curve = pd.concat([before, curve])
    (output / "training.json").write_text(json.dumps(story, indent=1) + "\n")
    curve.to_csv(output / "learning_curve.csv", index=False)
    learning_curve(output / "learning_curve.csv", output / "learning_curve.png")


@door("train")
def main(cfg) -> None:
    cfg = OmegaConf.to_object(cfg)
    if cfg.objective not in OBJECTIVES:
        raise ValueError(f"objective={cfg.objective!r} is not one of {', '.join(OBJECTIVES)}")
    if cfg.init_from and not Path(cfg.init_from).exists():
        parent = Path(cfg.init_from).name
        raise ValueError(
            f"init_from={cfg.init_from}: no such folder; train it first (python train.py recipe={parent})"
        )
    at_least_one(
        tokens=cfg.tokens,
        batch_tokens=cfg.batch_tokens,
        accumulate=cfg.accumulate,
        threads=cfg.threads,
        validation_tokens=cfg.validation_tokens,
    )
    if not 0 <= cfg.validation_problems <= problems.HELD_OUT:
        raise ValueError(
            f"validation_problems={cfg.validation_problems} must be from 0 to {problems.HELD_OUT}"
        )
    known = list(inspect.signature(OBJECTIVES[cfg.objective]).parameters)[3:]
    if unknown := cfg.objective_options.keys() - set(known):
        raise ValueError(
            f"objective_options: {cfg.objective} has no {', '.join(unknown)}; it has {', '.join(known) or 'none'}"
        )
    if cfg.dtype == "float16":
        raise ValueError("dtype=float16 needs loss scaling, which this loop has not: use bfloat16")
    # Numbers below float32's normal range made backward passes twice as slow. Before any thread starts:
    # threads inherit it.
    torch.set_flush_denormal(True)
    torch.set_num_threads(cfg.threads)
    place = Place.join(cfg.device)
    output = Path(cfg.output)
    tokenizer = AutoTokenizer.from_pretrained(cfg.init_from) if cfg.init_from else shared_tokenizer.build()
    model = build_model(cfg, tokenizer)
    stream = Stream(tokenizer, cfg.mixture, cfg.batch_tokens, cfg.seed, cfg.final_mixture, cfg.canvas)
    settings = {k: v for k, v in asdict(cfg).items() if k not in FREE}
    # What a step is, however many processes share it; and what the ids and the data are.
    settings |= {"accumulate": cfg.accumulate * place.world, "vocabulary": config_hash(tokenizer.get_vocab())}
    settings |= {"data": {task: problems.fingerprint(task) for task in problems.OPTIONS}}
    validation = Validation(tokenizer, cfg.validation_problems, cfg.budget, cfg.validation_tokens)
    trainer = Trainer(
        model,
        stream,
        cfg.objective,
        Path(cfg.folder),
        cfg.tokens,
        Schedule(cfg.lr, cfg.warmup, cfg.decay),
        cfg.weight_decay,
        cfg.seed,
        settings,
        cfg.objective_options,
        validation if cfg.validation_problems else None,
        cfg.accumulate,
        place,
        choose_dtype(cfg.dtype, place.device),
        earlier=earlier(cfg),
    )
    size = sum(p.numel() for p in model.parameters())
    resumed = trainer.resume()
    if place.leads:
        start = "resumed at" if resumed else "from"
        print(
            f"{cfg.name}: {size:,} parameters, {start} {trainer.seen:,} of {cfg.tokens:,} tokens, "
            f"{place.world} x {place.device}"
        )
    # A half-trained model stays beside its state; only a finished one replaces what `output` holds.
    look = Path(cfg.folder) / "model"
    try:
        trainer.run(
            checkpoint_minutes=cfg.checkpoint_minutes, on_checkpoint=lambda: export(trainer, tokenizer, look)
        )
    except KeyboardInterrupt as stop:
        sys.exit(f"\n{stop}" if place.leads else 1)
    if place.leads:
        export(trainer, tokenizer, output)
        print(f"wrote {output}")


if __name__ == "__main__":
    main()
