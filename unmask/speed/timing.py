"""Arms against each other: the same prompts in turns, medians, and ratios with paired intervals."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from unmask.decoding import Generation
from unmask.decoding.decoder import synchronise
from unmask.records.stats import Interval, bootstrap_median
from unmask.speed.arms import Arm

WARM_UP = 3  # prompts (at least; a whole batch)


def race(arms: Sequence[Arm], rounds: int, advance: Callable[[], None] = lambda: None) -> pd.DataFrame:
    """Every arm answers the same block of prompts in turn (A B A B ...), block after block, `rounds` times.

    A block is as many prompts as the largest batch. Returns a row per arm, round and block: `seconds`,
    `useful` tokens, `steps` (forwards of the decoder's main model, summed over rows), and forwards and
    positions per role.
    """
    block, count = max(arm.batch_size for arm in arms), len(arms[0].prompts)
    if count % block:
        raise ValueError(f"prompts={count} must be a multiple of the largest batch size, {block}")
    for arm in arms:
        arm.answer(0, min(count, max(WARM_UP, arm.batch_size)))
        advance()
    rows = []
    for turn in range(rounds):
        for start in range(0, count, block):
            for arm in arms:
                synchronise(arm.models.device)
                began = time.perf_counter()
                generations = arm.answer(start, block)
                synchronise(arm.models.device)
                rows.append(
                    {
                        "arm": arm.name,
                        "round": turn,
                        "block": start // block,
                        "seconds": time.perf_counter() - began,
                    }
                    | work(generations)
                )
                advance()
    return pd.DataFrame(rows).fillna(0)


def work(generations: Sequence[Generation]) -> dict[str, int]:
    """What generations amount to: useful tokens, steps, positions fed in them, and both per role."""
    roles = list(generations[0].forwards)
    total = {"answers": len(generations), "useful": sum(g.useful for g in generations)}
    for role in roles:
        total[f"forwards {role}"] = sum(g.forwards[role] for g in generations)
        total[f"positions {role}"] = sum(g.positions[role] for g in generations)
    return total | {"steps": total[f"forwards {roles[0]}"], "fed": total[f"positions {roles[0]}"]}


def speed(race: pd.DataFrame, arm: str) -> Interval:
    """Useful tokens a second: the median over rounds and blocks."""
    rows = race[race.arm == arm]
    return bootstrap_median(rows.useful / rows.seconds)


def ratio(race: pd.DataFrame, arm: str, baseline: str) -> Interval:
    """Speed over the baseline's, paired by round and block: the median."""
    ours, theirs = (
        race[race.arm == name].set_index(["round", "block"]).sort_index() for name in (arm, baseline)
    )
    return bootstrap_median(
        np.asarray(ours.useful / ours.seconds) / np.asarray(theirs.useful / theirs.seconds)
    )
