"""Train a model of the tiny family from scratch, or your own.

    python train.py recipe=tiny_qwen_large

A recipe (eval_config/recipe/) names the model, the objective, the mixture of data and the schedule; every
setting of it can be given on the command line, and `python train.py --help` lists them. The shipped models:

    python train.py recipe=tiny_qwen_large  # the causal parent
    python train.py recipe=tiny_dream       # adapted from it to masked diffusion; so is tiny_llada
    python train.py recipe=tiny_qwen        # the small causal auxiliary
    python train.py recipe=tiny_d2f_dream   # students of the diffusion models: tiny_d2f_*, tiny_dparallel_*

Training checkpoints every few minutes and on Ctrl-C; the same command goes on from there, batch for batch.
The result is a Hugging Face folder in checkpoints/ that `eval.py model=...` loads like any other, with the
learning curve beside it.

On GPUs the same command trains in bfloat16 (autocast), and torchrun shares each step between processes:

    torchrun --nproc-per-node 4 train.py recipe=tiny_dream accumulate=2

To train on what a model answered, record answers to the training split,

    python eval.py task.split=train limit=2000 batch_size=16 run_folder=runs/answers

and name that run as a source in a recipe: `mixture: {run:runs/answers: 1.0}`.
"""

import unmask.quiet  # noqa: F401, I001  (first: it quiets the libraries below)

import sys

import torch

from unmask.configuration.command_line import command
from unmask.configuration.composition import composed
from unmask.configuration.sweeps import key_of
from unmask.paths import ROOT
from unmask.models.resources import choose_dtype
from unmask.training import objectives, recipe
from unmask.training.data import Stream
from unmask.training.export import earlier, export
from unmask.training.loop import Trainer
from unmask.training.models import build_models, build_tokenizer
from unmask.training.optimization import Schedule
from unmask.training.processes import Place
from unmask.training.validation import Validation, decoders


@command("train", __doc__)
def main(given: list[str]) -> None:
    named = [word.partition("=")[2] for word in given if key_of(word) == "recipe"]
    chosen = named[-1] if named else "tiny_qwen_large"
    cfg = composed("train", given)
    cfg.folder = cfg.folder or f"runs/train/{chosen}"
    cfg = recipe.read(cfg)
    # Numbers below float32's normal range made backward passes twice as slow. Before any thread starts:
    # threads inherit it.
    torch.set_flush_denormal(True)
    torch.set_num_threads(cfg.threads)
    place = Place.join(cfg.device)
    try:
        train(cfg, chosen, place)
    except KeyboardInterrupt as stop:
        if place.leads:
            print(f"\n{stop}", file=sys.stderr)
        sys.exit(130)
    finally:
        place.leave()


def train(cfg: recipe.TrainConfig, chosen: str, place: Place) -> None:
    """Build what the recipe asks for, train it to its end, and write the model. chosen: the recipe's name."""
    trainer, tokenizer = prepare(cfg, place)
    resumed = trainer.resume()
    if place.leads:
        total = sum(p.numel() for p in trainer.objective.student.parameters())
        trained = sum(p.numel() for p in trainer.trained.values())
        part = f" ({trained:,} trained)" if trained < total else ""
        print(
            f"{cfg.name}: {total:,} parameters{part}, "
            f"{'resumed at' if resumed else 'from'} {trainer.seen:,} of {cfg.tokens:,} tokens, "
            f"{place.world} x {place.device}"
        )
    # A half-trained model stays beside its state; only a finished one replaces what `output` holds.
    unfinished, output = trainer.folder / "model", ROOT / cfg.output
    trainer.run(
        checkpoint_minutes=cfg.checkpoint_minutes,
        on_checkpoint=lambda: export(trainer, tokenizer, chosen, unfinished),
    )
    if place.leads:
        export(trainer, tokenizer, chosen, output)
        print(f"wrote {output}")


def prepare(cfg: recipe.TrainConfig, place: Place):
    """The trainer and the tokenizer of a recipe. Writes nothing; ValueError for whatever does not fit."""
    kind = objectives.find(cfg.objective)
    watched = {}
    if cfg.validation_problems:
        watched = decoders(cfg.validation_decoders, kind.roles, cfg.max_new_tokens, cfg.name)
    tokenizer = build_tokenizer(cfg)
    models = build_models(cfg, tokenizer)
    stream = Stream(tokenizer, cfg.mixture, cfg.batch_tokens, cfg.seed, cfg.final_mixture, cfg.canvas)
    student = models[objectives.STUDENT]
    # A new drafter drafts what its answers have most; one that goes on keeps its ids.
    if cfg.init_from is None and getattr(student, "draft_ids", None) is not None:
        student.draft_ids.copy_(torch.tensor(stream.frequent(len(student.draft_ids))))
    validation = Validation(
        tokenizer, cfg.validation_problems, cfg.max_new_tokens, cfg.validation_tokens, watched
    )
    parent = recipe.find_folder("init_from", cfg.init_from) if cfg.init_from else None
    trainer = Trainer(
        objective=kind(models, **objectives.typed(cfg.objective, cfg.objective_options)),
        stream=stream,
        folder=ROOT / cfg.folder,
        tokens=cfg.tokens,
        schedule=Schedule(cfg.lr, cfg.warmup, cfg.decay),
        weight_decay=cfg.weight_decay,
        seed=cfg.seed,
        settings=recipe.identity(cfg, tokenizer, stream, place.world),
        validation=validation if watched else None,
        accumulate=cfg.accumulate,
        place=place,
        dtype=choose_dtype(cfg.dtype, place.device),
        earlier=earlier(parent, cfg.name),
    )
    return trainer, tokenizer


if __name__ == "__main__":
    main()
