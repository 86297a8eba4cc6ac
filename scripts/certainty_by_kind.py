"""How much of a block a model knows at once, by kind of token: words, digits, signs.

    python -m scripts.certainty_by_kind tiny_llada tiny_dparallel_llada

Each model answers problems a token a forward in blocks of B. Then every block is looked at once more, all of
it masked and all left of it known: the entropy of each of its tokens, and whether the likeliest one is right.
"""

import unmask.quiet  # noqa: F401, I001  (first: it quiets the libraries below)

import argparse
import re

import pandas as pd
import torch
from rich.console import Console

from unmask.configuration.command_line import refusals
from unmask.decoding.sampling import exclude
from unmask.evaluation.evaluation import Evaluation
from unmask.evaluation.several import answer

KINDS = {"digits": r"\d", "signs": r"[-+*/=<>#$%]"}  # anything else is words


def kind_of(text: str) -> str:
    return next((name for name, pattern in KINDS.items() if re.search(pattern, text)), "words")


def certainty(evaluation: Evaluation) -> pd.DataFrame:
    """A row per token of the answers: kind, entropy in nats, whether it is right at once."""
    models, tokenizer = evaluation.lm.models, evaluation.lm.tokenizer
    block, max_new_tokens = evaluation.decoder.block_length, evaluation.cfg.task.max_new_tokens
    samples = {(s["doc_id"], s["repeat"]): s for s in evaluation.run.samples()}
    prompts, rows = evaluation.lm.prompts(evaluation.requests), []
    for request, prompt in zip(evaluation.requests, prompts, strict=True):
        sample = samples[evaluation.lm.key(request)]
        ids = torch.tensor(sample["ids"])
        for begin in range(0, sample["useful"], block):
            end = min(begin + block, sample["useful"])
            canvas = torch.full((max_new_tokens,), models.mask_id)
            canvas[:begin] = ids[:begin]
            columns = torch.arange(len(prompt) + begin, len(prompt) + end)
            with torch.inference_mode():
                seen = torch.cat((prompt, canvas))[None].to(models.device)
                logits = models.main(input_ids=seen, logits_to_keep=columns.to(models.device)).logits[0]
                p = exclude(logits, models.mask_id).softmax(-1).cpu()
            found = zip(ids[begin:end], torch.special.entr(p).sum(-1), p.argmax(-1), strict=True)
            rows += [(kind_of(tokenizer.decode([t])), float(h), bool(t == best)) for t, h, best in found]
    return pd.DataFrame(rows, columns=["kind", "entropy", "right"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.certainty_by_kind", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("models", nargs="+", help="diffusion models, as eval.py's model=")
    parser.add_argument("--block-length", type=int, default=8)
    parser.add_argument("--limit", type=int, default=60, help="documents (default 60)")
    parser.add_argument("--results", default="results", help="folder of the runs")
    options = parser.parse_args(arguments)
    with refusals():
        shared = [f"limit={options.limit}", f"results={options.results}", "batch_size=16", "threads=1"]
        one = ["decoder=confidence", "decoder.quota=even", f"decoder.block_length={options.block_length}"]
        evaluations = [Evaluation.of(f"model={model}", *one, *shared) for model in options.models]
        answer(evaluations, what=f"{len(evaluations)} models")
        found = {}
        for evaluation in evaluations:
            table = (
                certainty(evaluation)
                .groupby("kind")
                .agg(tokens=("right", "size"), entropy=("entropy", "mean"), right_at_once=("right", "mean"))
            )
            found[evaluation.cfg.model.name] = table
            evaluation.lm.release()
    Console().print(pd.concat(found, names=["model"]).round(3).to_string(), highlight=False)


if __name__ == "__main__":
    main()
