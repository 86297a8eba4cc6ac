"""Measure the shipped checkpoints and write their cards:  python -m scripts.model_cards [DOCUMENTS] [MODEL
...] [KEY=VALUE ...]

Each card (checkpoints/NAME/README.md) says what the model is, what it was trained on and for how long, how
good it is on held-out problems, and the effects of decoding that it exists for, as paired differences. Runs
are kept in results/cards: interrupted, it goes on; finished, it only writes. KEY=VALUE are settings of
eval.py, such as threads=1.
"""

import unmask  # noqa: F401, I001  (first: it quiets the libraries below)

import json
import sys

from rich.console import Console

from unmask.tasks import problems
from unmask.cli import refusals
from unmask.config import ROOT
from unmask.evaluation import Evaluation
from unmask.plots.tables import summary_table
from unmask.records.summary import compare

DOCUMENTS = 500
EFFECTS = 0.4  # share of the documents that the effects are measured on: they are paired, and many
WHAT = {
    "tiny_qwen_large": (
        "Causal, Qwen2's layout: the parent of tiny_dream and the autoregressive "
        "baseline. Stands for Qwen2.5 7B."
    ),
    "tiny_qwen": "Causal, Qwen2's layout, small: the auxiliary of APD. Stands for Qwen2.5 0.5B.",
    "tiny_dream": (
        "Dream's layout (bidirectional, shifted), adapted from tiny_qwen_large. Stands for Dream 7B."
    ),
    "tiny_llada": (
        "LLaDA's layout (bidirectional, unshifted), trained from nothing by masked "
        "diffusion. Stands for LLaDA 8B."
    ),
}
CAUSAL = {"greedy": ["decoder=autoregressive"]}
GREEDY = {"K = 1": ["decoder=leftright"]}
APD = {f"APD, R = {r}": ["decoder=apd", f"decoder.mixture_weight={r}"] for r in (0.1, 0.4, 0.7, 1.0)}
DIFFUSION = {
    "K = 2": ["decoder=leftright", "decoder.tokens_per_step=2"],
    "K = 4": ["decoder=leftright", "decoder.tokens_per_step=4"],
    **APD,
    **{
        f"APD, R = {r:g}, M = 4": ["decoder=apd", f"decoder.mixture_weight={r}", "decoder.max_lookahead=4"]
        for r in (0.0, 0.1)
    },
    "confidence, a step per token": ["decoder=confidence"],
    "random, a step per token": ["decoder=random"],
}


def measure(
    name: str, setting: list[str], documents: int, overrides: tuple[str, ...], task: str = "gsm_symbolic"
) -> Evaluation:
    """A finished evaluation of one setting; `overrides` are eval.py's."""
    # In batches: what is reported here, answers and steps, does not depend on them.
    shared = [f"model={name}", f"task={task}", f"limit={documents}", "batch_size=16", "results=results/cards"]
    evaluation = Evaluation.of(*shared, *setting, *overrides)
    with evaluation.run:
        evaluation.score()
    return evaluation


def percent(summary: dict, name: str = "accuracy", form: str = "{:.1f}%") -> str:
    ends = ", ".join(f"{100 * end:.1f}" for end in summary[f"{name}_interval"])
    return f"{form.format(100 * summary[name])} [{ends}]"


def card(name: str, documents: int, overrides: tuple[str, ...] = ()) -> str:
    """The text of one card; measures what is not measured yet."""
    folder = ROOT / "checkpoints" / name
    story = json.loads((folder / "training.json").read_text())
    stages = [story]  # a model may have been trained by one recipe after another
    while "earlier" in stages[0]:
        stages.insert(0, stages[0]["earlier"])
    settings, machine = story["settings"], story["environment"]
    machines = ", then ".join(
        dict.fromkeys(f"{s['environment']['cpu']}, {s['environment']['cores']} cores" for s in stages)
    )
    diffusion = settings["objective"] == "masked_diffusion"
    label, baseline = next(iter((GREEDY if diffusion else CAUSAL).items()))
    trade = effects(name, max(2, int(EFFECTS * documents)), overrides) if diffusion else []
    main = {
        t: measure(name, baseline, documents, overrides, t).summary for t in ("gsm_symbolic", "chain_sum")
    }
    Console().print(summary_table({f"{name}, {task}": summary for task, summary in main.items()}))
    sat = [s for stage in stages for s in stage["sittings"]]
    sittings = [f"from step {s['from_step']:,} towards {s['planned_tokens'] / 1e6:.1f}M" for s in sat]
    tokens, steps, seconds = (sum(stage[key] for stage in stages) for key in ("tokens", "steps", "seconds"))
    lines = [
        f"# {name}",
        "",
        f"{WHAT[name]} A tiny model for measuring decoders on a laptop; not a model to use, and no "
        "evidence about the real one.",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {story['parameters']:,} |",
        "| layout | "
        f"{', '.join(f'{k} {v}' for k, v in settings['architecture'].items() if not isinstance(v, dict))} |",
        f"| objective | {settings['objective']} {json.dumps(settings['objective_options'] or {})} |",
        f"| starts from | {stages[0]['settings']['init_from'] or 'nothing'} |",
        f"| data | reasoning-gym {machine['packages'].get('reasoning-gym', '')}, streamed by seed; "
        "shares of the tokens over "
        f"training: {', then '.join(map(mixture, stages))} |",
        f"| filter | whole numbers from 0 to {problems.MAX_NUMBER}, questions of at most "
        f"{problems.MAX_QUESTION} and solutions "
        f"of at most {problems.MAX_SOLUTION} characters; no question of the test or validation "
        "problems (exact text; most test "
        "problems differ from some training problem in names and things only, see problems.py) |",
        f"| tokens seen | {tokens / 1e6:.1f}M, padding included, in {steps:,} steps |",
        f"| sittings | {'; '.join(sittings)}. (The learning rate follows the tokens planned; "
        "retraining plans all at once.) |",
        f"| training time | {seconds / 60:.0f} minutes on {machines} |",
        "| retrain | "
        f"{', then '.join('`python train.py recipe=' + s.get('recipe', name) + '`' for s in stages)} |",
        "",
        "![learning curve](learning_curve.png)",
        "",
        f"Held-out problems, zero-shot, chat template, {label}, 95% intervals (Wilson):",
        "",
        "| task | n | accuracy | test set |",
        "|---|---|---|---|",
        *[f"| {task} | {s['n']} | {percent(s)} | {problems.fingerprint(task)} |" for task, s in main.items()],
        "",
        *trade,
    ]
    return "\n".join(lines)


def mixture(stage: dict) -> str:
    """The shares of the data over one stage of training, in words."""
    first = stage["settings"]["mixture"]
    last = stage["settings"]["final_mixture"] or first
    return "; ".join(
        f"{name} {100 * share:.0f} to {100 * last.get(name, 0):.0f}%" for name, share in first.items()
    )


def effects(name: str, documents: int, overrides: tuple[str, ...]) -> list[str]:
    """The decoders against one token a step on the same problems, as lines of Markdown."""
    found = {
        label: measure(name, setting, documents, overrides) for label, setting in (GREEDY | DIFFUSION).items()
    }
    baseline = found["K = 1"]
    Console().print(summary_table({label: e.summary for label, e in found.items()}))
    lines = [
        f"What parallel decoding does to it: {documents} problems, differences paired with K = 1, 95% "
        "intervals.",
        "",
        "| decoder | accuracy | difference (points) | tokens per step |",
        "|---|---|---|---|",
    ]
    for label, e in found.items():
        difference = (
            ""
            if e is baseline
            else percent(compare(baseline.scored, e.scored), "accuracy_difference", "{:+.1f}")
        )
        lines.append(
            f"| {label} | {percent(e.summary)} | {difference} | {e.summary['tokens_per_step']:.2f} |"
        )
    return [*lines, ""]


def main(arguments: list[str]) -> None:
    documents = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else DOCUMENTS
    overrides = tuple(a for a in arguments if "=" in a)
    named = [a for a in arguments if a not in overrides]
    for name in named or [n for n in WHAT if (ROOT / "checkpoints" / n).is_dir()]:
        (ROOT / "checkpoints" / name / "README.md").write_text(card(name, documents, overrides))
        print(f"wrote checkpoints/{name}/README.md")


if __name__ == "__main__":
    with refusals():
        main(sys.argv[1:])
