"""Evaluate one decoder on one model and one task:  python eval.py model=tiny_dream decoder=apd

    python eval.py                                                    # APD on the tiny family
    python eval.py decoder=leftright decoder.tokens_per_step=4        # four tokens a step, no second opinion
    python eval.py decoder=apd decoder.mixture_weight=0.5 limit=50    # R = 0.5, 50 documents
    python eval.py model=tiny_qwen_large decoder=autoregressive       # the autoregressive baseline
    python eval.py shard=1/4                                          # a quarter of the documents
    python eval.py figure=fig3                                        # all settings of a figure
    python eval.py figure=fig2,fig3                                   # of two, all in turns
    python eval.py -m decoder.mixture_weight=0.1,0.5,0.9              # a sweep of your own
    python eval.py model=dream auxiliary=qwen_0.5b task=gsm8k         # the paper's setting; wants a GPU

Results go to results/<run id>/, a document at a time: stopped at any moment, the same command finishes what
is missing; again, it recomputes nothing. The last line on stdout is one JSON object. `python eval.py --help`
lists every choice and setting.
"""

import unmask  # noqa: F401, I001  (first: it quiets the libraries below)

import json
import sys

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from rich.console import Console

from unmask.configuration.command_line import door
from unmask.evaluation.evaluation import Evaluation, answer, distinct
from unmask.report.tables import summary_table
from unmask.records.naming import labels
from unmask.configuration.sweeps import expand, figures_named, given, lists_allowed, resolve


def main() -> None:
    with lists_allowed():
        evaluate()


@door("eval")
def evaluate(cfg) -> None:
    hydra = HydraConfig.get()
    multirun = hydra.mode == RunMode.MULTIRUN
    if multirun and cfg.run_folder:
        raise ValueError(
            f"run_folder={cfg.run_folder} is one run's: a sweep files its runs in results=FOLDER"
        )
    if figures_named(given()) and not multirun:
        return figure(cfg, expand(given()))
    evaluation = Evaluation(compose("eval", resolve(given())) if cfg.arms or cfg.arm else cfg)
    with evaluation.run:
        if cfg.shard:
            print(json.dumps(evaluation.decode()))
            return
        if joined := evaluation.gather():
            print(f"joined {joined} documents of other shards")
        for note in evaluation.remarks + evaluation.run.notes:
            print(note, file=sys.stderr)
        if not evaluation.missing:
            print(f"all {len(evaluation.requests)} documents are in {evaluation.folder}: nothing to decode")
        summary = evaluation.score()
    Console().print(summary_table({evaluation.label: summary}))
    print(json.dumps(evaluation.headline(summary)))


def figure(cfg, settings: list[list[str]]) -> None:
    """All settings of the figures: in turns where they say so, else one after the other."""
    if cfg.run_folder:
        raise ValueError(f"run_folder={cfg.run_folder} is for one run, not for {len(settings)} settings")
    evaluations = distinct(Evaluation(compose("eval", overrides)) for overrides in settings)
    for remark in dict.fromkeys(remark for evaluation in evaluations for remark in evaluation.remarks):
        print(remark, file=sys.stderr)
    answer(evaluations, f"{len(evaluations)} settings")
    if cfg.shard:
        print(json.dumps({"shard": cfg.shard, "settings": len(evaluations)}))
        return
    short = labels([evaluation.identity for evaluation in evaluations])
    places = [f"{e.cfg.model.name}, {e.cfg.task.name}" for e in evaluations]
    names = [f"{name} on {place}" for name, place in zip(short, places, strict=True)]
    found = dict(zip(names, evaluations, strict=True))
    Console().print(summary_table({name: evaluation.summary for name, evaluation in found.items()}))
    print(json.dumps({name: evaluation.headline(evaluation.summary) for name, evaluation in found.items()}))


if __name__ == "__main__":
    main()
