"""How sure a model is of every masked position, step by step: one setting beside another (dParallel, figures
5 and 6).

    python -m scripts.certainty_map "model=tiny_llada decoder=confidence decoder.block_length=8"

Each argument is a setting of eval.py. Its run is made where it is missing. Then every step of every answer is
looked at once more: the canvas as it was before the step goes through the model, and the probability of the
likeliest token of each masked position is averaged over the documents.
"""

import unmask.quiet  # noqa: F401, I001  (first: it quiets the libraries below)

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from unmask.configuration.command_line import refusals
from unmask.progress import progress_bar
from unmask.paths import ROOT
from unmask.decoding.sampling import exclude
from unmask.evaluation.evaluation import Evaluation
from unmask.evaluation.several import answer, distinct
from unmask.report.certainty import draw

STEPS = 16  # that go through the model at once
FEWEST = 5  # documents that a cell averages, at least


def certainty(evaluation: Evaluation, advance=lambda: None) -> np.ndarray:
    """Mean confidence of the masked positions, (steps, positions); nan where fewer than FEWEST documents have
    a mask."""
    models, max_new_tokens = evaluation.lm.models, evaluation.cfg.task.max_new_tokens
    samples = {(s["doc_id"], s["repeat"]): s for s in evaluation.run.samples()}
    total, count = np.zeros((max_new_tokens, max_new_tokens)), np.zeros((max_new_tokens, max_new_tokens))
    prompts = evaluation.lm.prompts(evaluation.requests)
    for request, prompt in zip(evaluation.requests, prompts, strict=True):
        sample = samples[evaluation.lm.key(request)]
        canvases = before_each_step(sample, max_new_tokens, models.mask_id)
        ids = torch.cat((prompt.expand(len(canvases), -1), canvases), 1).to(models.device)
        columns = torch.arange(len(prompt), ids.size(1), device=ids.device)
        with torch.inference_mode():
            sure = torch.cat(
                [
                    exclude(models.main(input_ids=some, logits_to_keep=columns).logits, models.mask_id)
                    .softmax(-1)
                    .amax(-1)
                    .cpu()
                    for some in ids.split(STEPS)
                ]
            ).numpy()
        masked = (canvases == models.mask_id).numpy()
        total[: len(sure)] += np.where(masked, sure, 0)
        count[: len(sure)] += masked
        advance()
    with np.errstate(invalid="ignore"):
        found = np.where(count >= FEWEST, total / count, np.nan)
    steps = np.isfinite(found).any(1).sum()
    return found[:steps]


def before_each_step(sample: dict, max_new_tokens: int, mask: int) -> torch.Tensor:
    """The canvas as every step found it: (steps, max_new_tokens) ids."""
    steps = torch.tensor(sample["commits"] + [-1] * (max_new_tokens - len(sample["commits"])))
    final = torch.full((max_new_tokens,), mask)
    final[steps >= 0] = torch.tensor(sample["ids"])
    known = (steps >= 0) & (steps < torch.arange(int(steps.max()) + 1)[:, None])
    return torch.where(known, final, mask)


def check(evaluations: Sequence[Evaluation]) -> None:
    """ValueError for settings that make no map, or none beside the others. Loads no model."""
    for evaluation in evaluations:
        if "denoiser" not in evaluation.sources:
            raise ValueError(f"{evaluation.label}: has no denoiser, so no masked positions")
        if len(evaluation.requests) < FEWEST:
            raise ValueError(
                f"--limit {len(evaluation.requests)}: a cell averages {FEWEST} documents or more"
            )
        if evaluation.cfg.task.name != evaluations[0].cfg.task.name:
            raise ValueError("settings of several tasks make no common map: run the script once a task")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.certainty_map", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("settings", nargs="+", help="settings of eval.py in quotes, one argument a panel")
    parser.add_argument("--limit", type=int, default=50, help="documents (default 50)")
    parser.add_argument("--results", default="results", help="folder of the runs")
    parser.add_argument("--picture", type=Path, default=ROOT / "results/figures/certainty_map.png")
    options = parser.parse_args(arguments)
    with refusals():
        shared = [f"limit={options.limit}", f"results={options.results}"]
        evaluations = distinct(Evaluation.of(*setting.split(), *shared) for setting in options.settings)
        check(evaluations)
        answer(evaluations, what=f"{len(evaluations)} settings")
        maps = {}
        with progress_bar() as bar:
            total = sum(len(evaluation.requests) for evaluation in evaluations)
            task = bar.add_task("looking", total=total)
            for evaluation in evaluations:
                accuracy, per_step = (evaluation.summary[k] for k in ("accuracy", "tokens_per_step"))
                title = f"{evaluation.label}\n{100 * accuracy:.1f}%, {per_step:.2f} tokens a step"
                maps[title] = certainty(evaluation, lambda: bar.advance(task))
                evaluation.lm.release()
    first = evaluations[0]
    note = (
        f"{first.cfg.task.name}, n = {len(first.requests)}, {first.identity['dtype']}. Probability of the "
        "likeliest token at every position that is still masked, mean over documents, before each step."
    )
    draw(maps, options.picture, note)
    print(f"figure: {options.picture}")


if __name__ == "__main__":
    main()
