"""How fast decoders are, as ratios measured side by side:  python bench.py bench=laziness

    python bench.py                                   # APD against one token a step, on the tiny family
    python bench.py bench=overhead                    # what APD spends outside the models
    python bench.py bench=batches decoder=confidence  # what batches gain
    python bench.py bench=growth                      # what a step costs as the canvas grows, as curves
    python bench.py bench=none '+arms={greedy: "decoder.temperature=0", sampled: ""}'

Arms answer the same prompts in turn (A B A B ...) after a warm-up; speeds and ratios are of the whole race,
with 95% bootstrap intervals over blocks of prompts, paired. Shares, memory, arithmetic and the ceiling (the
same forwards replayed alone) come from passes of their own. The last line on stdout is one JSON object.
`python bench.py --help` lists every choice.
"""

import unmask  # noqa: F401, I001  (first: it quiets the libraries below)

import json
import os
from pathlib import Path

import pandas as pd
import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from rich.console import Console

from unmask.configuration.command_line import door
from unmask.progress import progress_bar
from unmask.decoding.sampling import at_least_one
from unmask.report.scaling import curves
from unmask.report.tables import anatomy_table, speed_table
from unmask.records import environment
from unmask.benchmark.profile import anatomy
from unmask.benchmark.arms import Arm, build
from unmask.benchmark.timing import race, ratio, speed


@door("bench")
def main(cfg) -> None:
    at_least_one(
        prompts=cfg.prompts,
        rounds=cfg.rounds,
        prompt_length=cfg.prompt_length,
        tokens=cfg.tokens,
        threads=cfg.threads,
    )
    if not cfg.arms:
        raise ValueError(
            "arms: nothing to compare; bench=paper has some, and --help shows how to give your own"
        )
    if bool(cfg.sweep) != bool(cfg.points):
        raise ValueError(
            f"sweep={cfg.sweep} and points={list(cfg.points)} go together: what varies, and its values"
        )
    torch.set_num_threads(cfg.threads)
    given = list(HydraConfig.get().overrides.task)

    def arms(*overrides: str) -> list[Arm]:
        return [
            build(name, compose("bench", [*given, *changes.split(), *overrides]))
            for name, changes in cfg.arms.items()
        ]

    report = sweep(cfg, arms) if cfg.sweep else comparison(cfg, arms())
    report |= {
        "bench": HydraConfig.get().runtime.choices.get("bench"),
        "settings": given,
        "environment": environment(),
    }
    report |= {"threads": cfg.threads}
    report = json.loads(json.dumps(report), parse_constant=lambda nan: None)  # JSON has no NaN
    if cfg.report:
        Path(cfg.report).parent.mkdir(parents=True, exist_ok=True)
        Path(cfg.report).write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))


def comparison(cfg, arms: list[Arm]) -> dict:
    """Race the arms, look into each, print; returns everything that is printed."""
    console, base = Console(width=max(110, Console().width)), arms[0].name
    blocks = cfg.prompts // max(arm.batch_size for arm in arms)
    with progress_bar() as bar:
        task = bar.add_task("racing", total=len(arms) * (1 + cfg.rounds * blocks))
        rows = race(arms, cfg.rounds, lambda: bar.advance(task))
    report = {arm.name: measures(rows, arm.name, base) for arm in arms}
    console.print(speed_table(report))
    if cfg.anatomy:
        with progress_bar() as bar:
            for arm in bar.track(arms, description="looking inside"):
                report[arm.name] |= anatomy(arm, max(arm.batch_size, min(2, cfg.prompts)))
        console.print(anatomy_table(report))
    return {"arms": report}


def measures(rows: pd.DataFrame, arm: str, base: str) -> dict:
    mine = rows[rows.arm == arm]
    costs = {
        c: float(mine[c].sum() / mine.answers.sum()) for c in mine if c.startswith(("forwards", "positions"))
    }
    return {
        "tokens_per_second": speed(rows, arm),
        "ratio": ratio(rows, arm, base),
        "tokens_per_step": float(mine.useful.sum() / mine.steps.sum()),
        "positions_per_step": float(mine.fed.sum() / mine.steps.sum()),
        "milliseconds_per_step": float(1e3 * (mine.seconds / mine.steps).median()),
        "per_answer": costs,
    }


def sweep(cfg, arms) -> dict:
    """The race at every value of one setting: curves instead of a table."""
    rows = []
    with progress_bar() as bar:
        for value in bar.track(list(cfg.points), description=cfg.sweep):
            here = arms(f"{cfg.sweep}={value}")
            run = race(here, cfg.rounds)
            rows += [
                {"arm": arm.name, cfg.sweep: value} | measures(run, arm.name, here[0].name) for arm in here
            ]
    table = pd.DataFrame(rows).drop(columns="per_answer")
    Console(width=110).print(
        table[["arm", cfg.sweep, "positions_per_step", "milliseconds_per_step", "tokens_per_step"]]
        .round(1)
        .to_string(index=False)
    )
    if cfg.report:
        stem = Path(cfg.report).with_suffix("")
        table.to_csv(stem.with_suffix(".csv"), index=False)
        machine = f"{environment()['cpu']}, {cfg.threads} threads"
        note = f"{cfg.model.name}, {cfg.prompts} prompts, {cfg.rounds} rounds, {machine}"
        curves(table, cfg.sweep, stem.with_suffix(".png"), note)
        print(f"figure: {os.path.relpath(stem.with_suffix('.png'))}")
    return {"sweep": cfg.sweep, "rows": rows}


if __name__ == "__main__":
    main()
