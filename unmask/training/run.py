"""What train.py does: a recipe's models, data and objective, trained to the end and written."""

import sys
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from unmask.configuration.composition import composed
from unmask.configuration.sweeps import key_of
from unmask.models.resources import choose_dtype
from unmask.paths import ROOT
from unmask.processes import Processes
from unmask.training import objectives
from unmask.training.checking import find_folder, identity, read
from unmask.training.data import Stream
from unmask.training.export import earlier, export
from unmask.training.loop import Trainer
from unmask.training.models import build_models, build_tokenizer
from unmask.training.optimization import Schedule
from unmask.training.recipe import DEFAULT, TrainConfig
from unmask.training.sources import check_runs
from unmask.training.validation import Validation, decoders

VALIDATION = (
    "validation_tokens",
    "validation_decoders",
    "max_new_tokens",
)  # read where problems are answered


def run(given: Sequence[str]) -> None:
    """Train what the words of a command (key=value) ask for. ValueError naming what is wrong with them."""
    named = [word.partition("=")[2] for word in given if key_of(word) == "recipe"]
    chosen = named[-1] if named else DEFAULT
    settings = composed("train", given)
    if settings.folder is None:
        settings.folder = f"runs/train/{chosen}"
    cfg = read(settings)
    check_effects(cfg, given)
    # Numbers below float32's normal range made backward passes twice as slow. Before any thread starts:
    # threads inherit it.
    torch.set_flush_denormal(True)
    torch.set_num_threads(cfg.threads)
    processes = Processes.join(cfg.device)
    try:
        train(cfg, chosen, processes)
    except KeyboardInterrupt as stop:
        if processes.is_main:
            print(f"\n{stop}", file=sys.stderr)
        sys.exit(130)
    finally:
        processes.leave()


def check_effects(cfg: TrainConfig, given: Sequence[str]) -> None:
    """ValueError for a word of a command that nothing reads."""
    for word in given:
        if key_of(word) in VALIDATION and not cfg.validation_problems:
            raise ValueError(f"{word[:100]}: has no effect where validation_problems=0, remove it")


def train(cfg: TrainConfig, chosen: str, processes: Processes) -> None:
    """Build what the recipe asks for, train it to its end, and write the model. chosen: the recipe's name."""
    trainer, tokenizer = prepare(cfg, processes)
    resumed = trainer.resume()
    if processes.is_main:
        total = sum(p.numel() for p in trainer.objective.student.parameters())
        trained = sum(p.numel() for p in trainer.trained.values())
        part = f" ({trained:,} trained)" if trained < total else ""
        print(
            f"{cfg.name}: {total:,} parameters{part}, "
            f"{'resumed at' if resumed else 'from'} {trainer.seen:,} of {cfg.tokens:,} tokens, "
            f"{processes.world_size} x {processes.device}"
        )
    # A half-trained model stays beside its state; only a finished one replaces what `output` holds.
    unfinished, output = trainer.folder / "model", ROOT / cfg.output
    trainer.run(
        checkpoint_minutes=cfg.checkpoint_minutes,
        on_checkpoint=lambda: export(trainer, tokenizer, chosen, unfinished),
    )
    if processes.is_main:
        export(trainer, tokenizer, chosen, output)
        print(f"wrote {output}")


def prepare(cfg: TrainConfig, processes: Processes) -> tuple[Trainer, PreTrainedTokenizerBase]:
    """The trainer and the tokenizer of a recipe. Writes nothing; ValueError for whatever does not fit."""
    kind = objectives.find(cfg.objective)
    watched = {}
    if cfg.validation_problems:
        watched = decoders(cfg.validation_decoders, kind.roles, cfg.max_new_tokens, cfg.name)
    check_runs({**cfg.mixture, **(cfg.final_mixture or {})})
    tokenizer = build_tokenizer(cfg)
    dtype = choose_dtype(cfg.dtype, processes.device)
    models = build_models(cfg, tokenizer, processes.device, dtype)
    stream = Stream(tokenizer, cfg.mixture, cfg.batch_tokens, cfg.seed, cfg.final_mixture, cfg.canvas)
    student = models[objectives.STUDENT]
    # A new drafter drafts what its answers have most; one that goes on keeps its ids.
    if cfg.init_from is None and getattr(student, "draft_ids", None) is not None:
        student.draft_ids.copy_(torch.tensor(stream.frequent(len(student.draft_ids))))
    validation = Validation(
        tokenizer, cfg.validation_problems, cfg.max_new_tokens, cfg.validation_tokens, watched
    )
    parent = find_folder("init_from", cfg.init_from) if cfg.init_from else None
    trainer = Trainer(
        objective=kind(models, **objectives.typed(cfg.objective, cfg.objective_options)),
        stream=stream,
        folder=ROOT / cfg.folder,
        tokens=cfg.tokens,
        schedule=Schedule(cfg.lr, cfg.warmup, cfg.decay),
        weight_decay=cfg.weight_decay,
        seed=cfg.seed,
        settings=identity(cfg, tokenizer, stream, processes.world_size),
        validation=validation if watched else None,
        accumulate=cfg.accumulate,
        processes=processes,
        dtype=dtype,
        earlier=earlier(parent, cfg.name),
    )
    return trainer, tokenizer
