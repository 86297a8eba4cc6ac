"""Arms against each other: the same prompts in turns, and ratios with paired intervals."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd

from unmask.benchmark.arms import Arm
from unmask.decoding import Generation
from unmask.decoding.decoder import synchronise
from unmask.records.stats import Interval, bootstrap_ratio, bootstrap_speedup

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
                seconds, generations = arm.models.settled(partial(timed, arm, start, block))
                found = {"arm": arm.name, "round": turn, "block": start // block, "seconds": seconds}
                rows.append(found | work(generations))
                advance()
    return pd.DataFrame(rows).fillna(0)


def timed(arm: Arm, start: int, count: int) -> tuple[float, list[Generation]]:
    """(seconds, what they brought) of `Arm.answer`."""
    synchronise(arm.models.device)
    began = time.perf_counter()
    generations = arm.answer(start, count)
    synchronise(arm.models.device)
    return time.perf_counter() - began, generations


def work(generations: Sequence[Generation]) -> dict[str, int]:
    """What generations amount to: useful tokens, steps, positions fed in them, and both per role."""
    roles = list(generations[0].forwards)
    total = {"answers": len(generations), "useful": sum(g.useful for g in generations)}
    for role in roles:
        total[f"forwards {role}"] = sum(g.forwards[role] for g in generations)
        total[f"positions {role}"] = sum(g.positions[role] for g in generations)
    return total | {"steps": total[f"forwards {roles[0]}"], "fed": total[f"positions {roles[0]}"]}


def speed(race: pd.DataFrame, arm: str) -> Interval:
    """Useful tokens over seconds of the whole race, as in every table, with a bootstrap interval."""
    mine = _units(race, arm)
    return bootstrap_ratio(mine.useful, mine.seconds)


def ratio(race: pd.DataFrame, arm: str, baseline: str) -> Interval:
    """Speed over the baseline's, with a bootstrap interval paired by prompts."""
    ours, theirs = _units(race, arm), _units(race, baseline)
    return bootstrap_speedup(theirs.useful, theirs.seconds, ours.useful, ours.seconds)


def _units(race: pd.DataFrame, arm: str) -> pd.DataFrame:
    """What is resampled: blocks of prompts, rounds added up; the rounds where there is one block alone."""
    unit = "block" if race.block.nunique() > 1 else "round"
    return race[race.arm == arm].groupby(unit)[["useful", "seconds"]].sum().sort_index()
