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

from unmask.configuration.command_line import command


@command("train", __doc__)
def main(given: list[str]) -> None:
    from unmask.training.run import run

    run(given)


if __name__ == "__main__":
    main()
