"""Measure the shipped checkpoints and write their cards:  python -m scripts.model_cards [DOCUMENTS] [MODEL
...] [KEY=VALUE ...]

Each card (checkpoints/NAME/README.md) says what the model is, what it was trained on and for how long, how
good it is on held-out problems, and the effects of decoding that it exists for, as paired differences. Runs
are kept in results/cards: interrupted, it goes on; finished, it only writes. KEY=VALUE are settings of
eval.py, such as threads=1, or results=results to share runs with figures in batches of 16.
"""

import unmask.quiet  # noqa: F401, I001  (first: it quiets the libraries below)

import json
import sys

from rich.console import Console

from unmask.tasks import parallelbench, problems
from unmask.configuration.command_line import refusals
from unmask.paths import ROOT
from unmask.evaluation.evaluation import Evaluation
from unmask.report.learning import learning_curves
from unmask.report.tables import summary_table
from unmask.training.export import curve_of, documents
from unmask.records.comparing import compare

DOCUMENTS = 500
EFFECTS = 0.4  # share of the documents that the effects are measured on: they are paired, and many
PARALLELBENCH = "It answers the tasks of [ParallelBench](../../docs/parallelbench.md) and nothing else."
WHAT = {
    "tiny_qwen_large": (
        "Causal, Qwen2's layout: the parent of the diffusion models and the autoregressive "
        "baseline. Stands for Qwen2.5 7B."
    ),
    "tiny_qwen": "Causal, Qwen2's layout, small: the auxiliary of APD. Stands for Qwen2.5 0.5B.",
    "tiny_dream": (
        "Dream's layout (bidirectional, shifted), adapted from tiny_qwen_large. Stands for Dream 7B."
    ),
    "tiny_llada": (
        "LLaDA's layout (bidirectional, unshifted), adapted from tiny_qwen_large, where LLaDA 8B was trained "
        "from scratch. Stands for LLaDA 8B."
    ),
    **{
        f"tiny_dparallel_{base}": f"tiny_{base} after certainty forcing (dParallel, arXiv 2509.26488)."
        for base in ("dream", "llada")
    },
    **{
        f"tiny_d2f_{base}": f"tiny_{base} made block-causal (D2F, arXiv 2508.09192), for decoder=d2f."
        for base in ("dream", "llada")
    },
    "tiny_parallel_dream": f"Dream's layout (bidirectional, shifted), from scratch. {PARALLELBENCH}",
    "tiny_parallel_llada": (
        "LLaDA's layout (bidirectional, unshifted), from tiny_parallel_dream: it unlearns the shift. "
        f"{PARALLELBENCH}"
    ),
    "tiny_dflash": "DFlash's drafter (arXiv 2602.06036) of tiny_qwen_large, for decoder=dflash.",
}
TARGETS = {"tiny_dflash": "tiny_qwen_large"}  # drafter -> the model that it drafts for
BLOCKS = ["decoder=confidence", "decoder.quota=even"]
ONE = [*BLOCKS, "decoder.block_length=8"]  # one token a forward, in blocks of 8
CAUSAL = {"greedy": ["decoder=autoregressive"]}
GREEDY = {"K = 1": ["decoder=leftright"]}
ORDERS = {f"surest first, blocks of {b}": [*BLOCKS, f"decoder.block_length={b}"] for b in (8, 16)}
APD = {f"APD, R = {r}": ["decoder=apd", f"decoder.mixture_weight={r}"] for r in (0.1, 0.7)}
DIFFUSION = {
    "K = 2": ["decoder=leftright", "decoder.tokens_per_step=2"],
    "K = 4": ["decoder=leftright", "decoder.tokens_per_step=4"],
    **APD,
    **{
        f"APD, R = {r:g}, M = 4": ["decoder=apd", f"decoder.mixture_weight={r}", "decoder.max_lookahead=4"]
        for r in (0.0, 0.1)
    },
    **ORDERS,
    "surest first, one block": BLOCKS,
}
ENTROPY = {
    f"entropy at most {tau} nats": ["decoder=dparallel", "decoder.block_length=8", f"decoder.threshold={tau}"]
    for tau in (0.1, 0.5, 1.0)
}
PIPELINE = ["decoder=d2f", "decoder.block_length=8", "decoder.block_add_threshold=0.7"]
DFLASH = {f"dflash, B = {b}": ["decoder=dflash", f"decoder.block_length={b}"] for b in (8, 4, 2)}
PARALLEL = {  # one token a forward, of tiny_parallel_*
    "greedy, left to right": ["decoder=leftright", "decoder.temperature=0.0"],
    "greedy, surest first": [*BLOCKS, "decoder.temperature=0.0"],
    "drawn (T = 1), left to right": ["decoder=leftright", "decoder.temperature=1.0"],
}
BAR, PUZZLE_BAR = 0.95, 0.80  # of tiny_parallel_*, greedy from the left: less is named
STUDENTS = {  # method -> (its own one token a forward, what it is made for)
    "dparallel": (ONE, ENTROPY),
    "d2f": (
        [
            *PIPELINE[:2],
            "decoder.skip_threshold=1",
            "decoder.block_add_threshold=1",
            "decoder.decoded_token_threshold=1",
        ],
        {f"d2f, confidence above {c}": [*PIPELINE, f"decoder.skip_threshold={c}"] for c in (0.95, 0.9, 0.7)},
    ),
}


def base_of(name: str) -> str | None:
    """The model that a student is distilled from."""
    method, *rest = name.split("_")[1:]
    return f"tiny_{rest[0]}" if method in STUDENTS else None


def measure(
    name: str, setting: list[str], documents: int, overrides: tuple[str, ...], task: str = "gsm_symbolic"
) -> Evaluation:
    """A finished evaluation of one setting; `overrides` are eval.py's."""
    # In batches: what is reported here, answers and steps, does not depend on them.
    models = [f"model={TARGETS[name]}", f"drafter={name}"] if name in TARGETS else [f"model={name}"]
    shared = [*models, f"task={task}", f"limit={documents}", "batch_size=16", "results=results/cards"]
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
    record = json.loads((folder / "training.json").read_text())
    stages = [record]  # a model may have been trained by one recipe after another
    while "earlier" in stages[0]:
        stages.insert(0, stages[0]["earlier"])
    settings = record["settings"]
    machines = ", then ".join(
        dict.fromkeys(f"{s['environment']['cpu']}, {s['environment']['cores']} cores" for s in stages)
    )
    starts = [s for stage in stages for s in stage["sessions"]]
    sessions = [f"from step {s['from_step']:,} towards {s['planned_tokens'] / 1e6:.1f}M" for s in starts]
    tokens, steps, seconds = (sum(stage[key] for stage in stages) for key in ("tokens", "steps", "seconds"))
    lines = [
        f"# {name}",
        "",
        f"{WHAT[name]} A tiny model for measuring decoders on a laptop; not a model to use, and no "
        "evidence about the real one.",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {record['parameters']:,} |",
        f"| layout | {layout(stages)} |",
        f"| objective | {settings['objective']} {json.dumps(settings['objective_options'] or {})} |",
        f"| starts from | {stages[0]['settings']['init_from'] or 'scratch'} |",
        *data_of(name, stages),
        f"| tokens seen | {tokens / 1e6:.1f}M, padding included, in {steps:,} steps |",
        f"| sessions | {'; '.join(sessions)}. (The learning rate follows the tokens planned; "
        "retraining plans all at once.) |",
        f"| training time | {seconds / 60:.0f} minutes on {machines} |",
        "| retrain | "
        f"{', then '.join('`python train.py recipe=' + s.get('recipe', name) + '`' for s in stages)} |",
        "",
        "[Learning curve](../learning_curves.png)",
        "",
        *(on_parallelbench if parallel(name) else on_problems)(name, documents, overrides),
    ]
    return "\n".join(lines)


def parallel(name: str) -> bool:
    """Whether a model answers ParallelBench's tasks, and no word problems."""
    return name.startswith("tiny_parallel_")


def data_of(name: str, stages: list[dict]) -> list[str]:
    """What it was trained on, as rows of Markdown."""
    shares = f"shares of the tokens over training: {', then '.join(map(mixture, stages))}"
    if parallel(name):
        return [f"| data | unmask/tasks/parallelbench.py, streamed by seed; {shares} |"]
    packages = stages[-1]["environment"]["packages"]
    return [
        f"| data | reasoning-gym {packages.get('reasoning-gym', '')}, streamed by seed; {shares} |",
        f"| filter | whole numbers from 0 to {problems.MAX_NUMBER}, questions of at most "
        f"{problems.MAX_QUESTION} and solutions of at most {problems.MAX_SOLUTION} characters; no question "
        "of the test or validation problems (exact text; most test problems differ from some training "
        "problem in names and things only, see problems.py) |",
    ]


def on_problems(name: str, documents: int, overrides: tuple[str, ...]) -> list[str]:
    """How good it is on word problems and sums, and what decoding does, as lines of Markdown."""
    few = max(2, int(EFFECTS * documents))
    orders, trade = orders_and_effects(name, few, overrides)
    if base_of(name):
        documents = few
    wanted = [("gsm_symbolic", label) for label in orders] + [("chain_sum", next(iter(orders)))]
    measured = {
        (task, label): measure(name, orders[label], documents, overrides, task) for task, label in wanted
    }
    main_evaluation = next(iter(measured.values()))
    main = {key: evaluation.summary for key, evaluation in measured.items()}
    Console().print(summary_table({f"{name}, {t}, {label}": s for (t, label), s in main.items()}))
    return [
        f"Held-out problems, zero-shot, chat template{'' if name in TARGETS else ', one token a forward'}, "
        "95% intervals (Wilson):",
        "",
        "| task | decoder | n | accuracy | test set |",
        "|---|---|---|---|---|",
        *[
            f"| {task} | {label} | {s['n']} | {percent(s)} | {problems.fingerprint(task)} |"
            for (task, label), s in main.items()
        ],
        "",
        *by_template(main_evaluation),
        *trade,
    ]


def on_parallelbench(name: str, documents: int, overrides: tuple[str, ...]) -> list[str]:
    """How good it is on every task of ParallelBench, as lines of Markdown. Tokens are drawn where there are
    many right answers."""
    first, *_, drawn = PARALLEL
    found = {
        (task, label): measure(name, [*setting, f"task.name={task}"], documents, overrides, "parallelbench")
        for task in [*parallelbench.LINES, *parallelbench.PUZZLES]
        for label, setting in PARALLEL.items()
        if label != drawn or task.endswith(("shuffle", "random"))
    }
    found = {key: evaluation.summary for key, evaluation in found.items()}
    Console().print(summary_table({f"{name}, {t}, {label}": s for (t, label), s in found.items()}))
    tasks = list(dict.fromkeys(task for task, _ in found))
    low = [
        task
        for task in tasks
        if found[task, first]["accuracy"] < (PUZZLE_BAR if task in parallelbench.PUZZLES else BAR)
    ]
    bars = f"{100 * BAR:.0f}% (puzzles: {100 * PUZZLE_BAR:.0f}%), {first}"
    return [
        "Held-out problems, chat template, one token a forward, 95% intervals (Wilson). Drawn where a "
        "question has many right answers:",
        "",
        f"| task | n | {' | '.join(PARALLEL)} | test set |",
        f"|---|---|{'---|' * len(PARALLEL)}---|",
        *[
            f"| {task} | {found[task, first]['n']} | "
            + " | ".join(percent(found[task, label]) if (task, label) in found else "" for label in PARALLEL)
            + f" | {problems.fingerprint(task)} |"
            for task in tasks
        ],
        "",
        f"Below {bars}: {', '.join(low)}." if low else f"All tasks reach {bars}.",
        "",
    ]


def by_template(evaluation: Evaluation) -> list[str]:
    """How evenly the word problems are solved: the templates below a half, worst first, with an example, as
    lines of Markdown."""
    ((task, templates),) = evaluation.templates.items()
    questions = evaluation.tasks[task].eval_docs["question"]
    found: dict[str, list[dict]] = {}
    for sample in evaluation.scored:
        found.setdefault(templates[sample["doc_id"]], []).append(sample)
    accuracy = {name: sum(s["correct"] for s in rows) / len(rows) for name, rows in found.items()}
    worst = sorted((name for name in found if accuracy[name] < 0.5), key=lambda name: (accuracy[name], name))
    lines = [
        f"By template of the generator: {len(worst)} of {len(found)} are solved less than half of the time"
        f"{':' if worst else '.'}",
        "",
    ]
    for name in worst:
        rows = found[name]
        question = " ".join(questions[rows[0]["doc_id"]].split()[:12])
        solved = round(sum(row["correct"] for row in rows))
        lines.append(f'* {name}: {solved} of {len(rows)}, "{question} ..."')
    return [*lines, ""] if worst else lines


def mixture(stage: dict) -> str:
    """The shares of the data over one stage of training, in words."""
    first = stage["settings"]["mixture"]
    last = stage["settings"]["final_mixture"] or first
    return "; ".join(
        f"{name} {100 * share:.0f} to {100 * last.get(name, 0):.0f}%" for name, share in first.items()
    )


def layout(stages: list[dict]) -> str:
    """The fields of the architecture, or whose it is."""
    settings = stages[0]["settings"]
    if settings["architecture"] is None:
        return f"that of {settings['init_from']}"
    return ", ".join(f"{k} {v}" for k, v in settings["architecture"].items() if not isinstance(v, dict))


def orders_and_effects(
    name: str, documents: int, overrides: tuple[str, ...]
) -> tuple[dict[str, list[str]], list[str]]:
    """One token a forward, by decoder; and the table of what else decoding does, as lines of Markdown."""
    base = base_of(name)
    if base:
        one, fast = STUDENTS[name.split("_")[1]]
        rows = {f"{base}, a token a forward": (base, ONE)}
        rows |= {f"{base}, {label}": (base, setting) for label, setting in ENTROPY.items()}
        rows |= {f"{name}, a token a forward": (name, one)}
        rows |= {f"{name}, {label}": (name, setting) for label, setting in fast.items()}
        title = "What distillation did: blocks of 8"
        return {"blocks of 8": one}, effects(title, rows, documents, overrides)
    if "qwen" in name:
        return CAUSAL, []
    if target := TARGETS.get(name):
        rows = {f"{target}, autoregressive": (target, CAUSAL["greedy"])}
        rows |= {label: (name, setting) for label, setting in DFLASH.items()}
        return {"dflash": DFLASH["dflash, B = 8"]}, effects(
            f"What {target} takes of its drafts", rows, documents, overrides
        )
    rows = {label: (name, setting) for label, setting in (GREEDY | DIFFUSION).items()}
    title = "What parallel decoding does to it"
    return {"left to right": GREEDY["K = 1"], **ORDERS}, effects(title, rows, documents, overrides)


def effects(
    title: str, rows: dict[str, tuple[str, list[str]]], documents: int, overrides: tuple[str, ...]
) -> list[str]:
    """Models and decoders against the first one on the same problems, as lines of Markdown."""
    found = {label: measure(*row, documents, overrides) for label, row in rows.items()}
    first, baseline = next(iter(found.items()))
    Console().print(summary_table({label: e.summary for label, e in found.items()}))
    lines = [
        f"{title}: {documents} problems, differences paired with the first row, 95% intervals.",
        "",
        "| decoder | accuracy | difference (points) | tokens per step |",
        "|---|---|---|---|",
    ]
    for label, e in found.items():
        difference = (
            ""
            if label == first
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
    draw_curves()


def draw_curves() -> None:
    """The learning curves of all checkpoints, in one picture."""
    files = sorted((ROOT / "checkpoints").glob("*/training.json"))
    curves = {file.parent.name: curve_of(json.loads(file.read_text())) for file in files}
    picture = ROOT / "checkpoints" / "learning_curves.png"
    learning_curves({name: (curve, documents(curve)) for name, curve in curves.items()}, picture)


if __name__ == "__main__":
    with refusals():
        main(sys.argv[1:])
