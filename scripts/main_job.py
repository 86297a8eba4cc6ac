"""The main job (`make eval`): APD against one token a step, on the tiny family and held-out word problems.

The decoders answer the same problems in turns (a few each, A B C A B C), so that a busy moment of the machine
hits both. Prints a table and what it means, and writes results/main_job/figures/main_job.png. Interrupted, it
goes on where it was; finished, it only prints.
"""

import unmask.quiet  # noqa: F401, I001  (first: it quiets the libraries below)

import json
import os
from pathlib import Path

from rich.console import Console

from unmask.configuration.command_line import refusals

from unmask.paths import ROOT
from unmask.evaluation.evaluation import Evaluation
from unmask.evaluation.several import answer
from unmask.report.tables import print_table, summary_table, with_interval
from unmask.report.tradeoff import tradeoff
from unmask.records.comparing import compare

DOCUMENTS = 60
RESULTS = "results/main_job"  # of its own: runs made elsewhere were not made in turns
ARMS = {
    "one token a step": ["decoder=leftright"],
    "APD, R = 0, M = 4": [
        "decoder=apd",
        "decoder.mixture_weight=0.0",
        "decoder.max_lookahead=4",
    ],  # short, strict
    "APD, R = 0.1": ["decoder=apd", "decoder.mixture_weight=0.1"],  # leans on the auxiliary's judgement
    "APD, R = 0.7": ["decoder=apd", "decoder.mixture_weight=0.7"],  # leans on the draft itself
}


def beside(summary: dict) -> str:
    """The forwards of the other models, in brackets."""
    steps = summary["forwards"][summary["step_role"]]
    rest = {role: count for role, count in summary["forwards"].items() if role != summary["step_role"]}
    said = ", ".join(f"with {count / steps:.1f} {role} forwards" for role, count in rest.items() if steps)
    return f" ({said})" if said else ""


def main(
    documents: int = DOCUMENTS,
    overrides: tuple[str, ...] = (),
    figure: Path = ROOT / RESULTS / "figures" / "main_job.png",
) -> None:
    """Run all arms on the first `documents` problems; `overrides` are eval.py's, for all."""
    shared = [f"limit={documents}", f"results={RESULTS}", "interleave=true", *overrides]
    arms = {name: Evaluation.of(*setting, *shared) for name, setting in ARMS.items()}
    if not any(arm.missing for arm in arms.values()):
        print("All runs are finished: nothing to decode.")
    answer(list(arms.values()), what="answering")
    summaries = {name: arm.summary for name, arm in arms.items()}

    baseline, apd, *_ = arms.values()
    console = Console()
    console.print(
        f"\n{apd.cfg.model.name} on {documents} held-out {apd.cfg.task.name} problems, auxiliary "
        f"{apd.cfg.models['auxiliary'].name}, {apd.run.info['cpu']}",
        markup=False,
        highlight=False,
    )
    device = baseline.device.type
    print_table(summary_table(summaries, {name: arm.scored for name, arm in arms.items()}, device), console)
    for name, other in list(arms.items())[1:]:
        c = compare(baseline.scored, other.scored, in_turns=device == "cpu")
        speedup = with_interval(c, "speedup", "{:.1f} times", "{:.1f}").replace("\n", " ")
        if c["speedup_void"]:
            speedup = f"(not comparable: {c['speedup_void']})"
        difference = with_interval(c, "accuracy_difference", "{:+.1f}", "{:+.1f}", scale=100).replace(
            "\n", " "
        )
        console.print(
            f"{name} writes {summaries[name]['tokens_per_step']:.1f} tokens a step{beside(summaries[name])} "
            f"and {speedup} "
            "the tokens a second of "
            f"one-token decoding, at an accuracy difference of {difference} points on the same problems: "
            f"{c['improved']} answers became right, {c['worsened']} wrong.",
            markup=False,
            highlight=False,
        )
    console.print(
        "Brackets are 95% intervals. The models are a tiny stand-in family, trained by this repository: "
        "the trade-off is real, its size is theirs.",
        markup=False,
        highlight=False,
    )
    tradeoff(
        summaries,
        figure,
        f"{apd.cfg.task.name}, n = {documents}, {apd.cfg.model.name} + {apd.cfg.models['auxiliary'].name} "
        f"(tiny stand-in family), "
        f"{apd.run.info['gpu'] or apd.run.info['cpu']}, {apd.identity['dtype']}. Bars: 95% intervals.",
        device,
    )
    console.print(f"\nfigure: {os.path.relpath(figure)}")
    print(json.dumps({name: arm.headline(summaries[name]) for name, arm in arms.items()}))


if __name__ == "__main__":
    with refusals():
        main()
