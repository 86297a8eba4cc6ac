"""What bench.py does: race arms, profile each, print."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from unmask.benchmark.arms import Arm, build
from unmask.benchmark.profile import memory, profile
from unmask.benchmark.timing import race, ratio, speed
from unmask.configuration.composition import composed
from unmask.configuration.settings import check_effects
from unmask.configuration.sweeps import arm_choices, product
from unmask.decoding.sampling import at_least_one
from unmask.output import print_json, safe_in_csv
from unmask.paths import may_be_file
from unmask.progress import progress_bar
from unmask.records import environment
from unmask.report.scaling import curves
from unmask.report.tables import print_table, profile_table, speed_table


def bench(given: Sequence[str]) -> None:
    """The comparison that the words of a command name."""
    cfg = composed("bench", given)
    at_least_one(
        prompts=cfg.prompts,
        rounds=cfg.rounds,
        prompt_length=cfg.prompt_length,
        tokens=cfg.tokens,
        acceptance=cfg.acceptance,
        threads=cfg.threads,
    )
    if cfg.profile not in (True, False, "memory"):
        raise ValueError(f"profile={cfg.profile}: must be true, false or memory")
    if bool(cfg.sweep) != bool(cfg.points):
        raise ValueError(
            f"sweep={cfg.sweep} and points={list(cfg.points)} go together: what varies, and its values"
        )
    if cfg.report is not None and not may_be_file(Path(cfg.report)):
        raise ValueError(f"report={cfg.report[:100]}: must be the name of a file, as in report=growth.json")
    settings = arm_settings(cfg)
    check_effects("bench", given, [[*given, *own] for own in settings.values()])
    torch.set_num_threads(cfg.threads)

    def arms(*words: str) -> list[Arm]:
        return [build(name, composed("bench", [*given, *own, *words])) for name, own in settings.items()]

    report: dict[str, Any] = sweep(cfg, arms) if cfg.sweep else comparison(cfg, arms())
    report |= {"settings": list(given), "environment": environment(), "threads": cfg.threads}
    report = json.loads(json.dumps(report), parse_constant=lambda nan: None)  # JSON has no NaN
    if cfg.report:
        Path(cfg.report).parent.mkdir(parents=True, exist_ok=True)
        Path(cfg.report).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_json(report)


def arm_settings(cfg: DictConfig) -> dict[str, list[str]]:
    """name -> words of every arm: each of the configuration's, times its grid.

    An arm that is several says in its name what they differ in: "DFlash, batch_size=16".
    """
    arms, grid = (OmegaConf.to_container(cfg[key]) for key in ("arms", "grid"))
    grid, found = arm_choices(grid), {}
    for name, arm in (arms or ({"": {}} if grid else {})).items():
        choices = grid | arm_choices(arm)
        swept = [key for key, values in choices.items() if len(values) > 1]
        for words in product(choices):
            own = [word for word in words if word.partition("=")[0] in swept]
            found[", ".join([*[name] * bool(name), *own])] = words
    if not found:
        raise ValueError(
            "arms: nothing to compare; bench=paper has some, and --help shows how to give your own"
        )
    return found


def comparison(cfg: DictConfig, arms: list[Arm]) -> dict:
    """Race the arms, profile each, print; returns everything that is printed."""
    base = arms[0].name
    blocks = cfg.prompts // max(arm.batch_size for arm in arms)
    with progress_bar() as bar:
        task = bar.add_task("racing", total=len(arms) * (1 + cfg.rounds * blocks))
        rows = race(arms, cfg.rounds, lambda: bar.advance(task))
    report = {arm.name: measures(rows, arm.name, base) for arm in arms}
    print_table(speed_table(report))
    if cfg.profile:
        with progress_bar() as bar:
            for arm in bar.track(arms, description="looking inside"):
                count = max(arm.batch_size, min(2, cfg.prompts))
                report[arm.name] |= memory(arm, count) if cfg.profile == "memory" else profile(arm, count)
        print_table(profile_table(report))
    return {"arms": report}


def measures(rows: pd.DataFrame, arm: str, base: str) -> dict:
    """The numbers of an arm in a race; ratios are to the arm `base`."""
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


def sweep(cfg: DictConfig, arms: Callable[..., list[Arm]]) -> dict:
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
        .to_string(index=False),
        markup=False,
    )
    if cfg.report:
        stem = Path(cfg.report).with_suffix("")
        table.map(safe_in_csv).to_csv(stem.with_suffix(".csv"), index=False)
        machine = f"{environment()['cpu']}, {cfg.threads} threads"
        note = f"{cfg.model.name}, {cfg.prompts} prompts, {cfg.rounds} rounds, {machine}"
        curves(table, cfg.sweep, stem.with_suffix(".png"), note)
        print(f"figure: {os.path.relpath(stem.with_suffix('.png'))}")
    return {"sweep": cfg.sweep, "rows": rows}
