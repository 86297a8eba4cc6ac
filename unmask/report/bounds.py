"""What an ideal model scores on ParallelBench's tasks under a decoder: exact, by adding up all paths.

An ideal model gives every masked token its true probability: all right answers of a question are equally
likely, and those that fit the canvas are left. What it loses by writing several tokens at once is the
decoder's doing alone; what a measured model scores below it is the model's. Closed forms, where n names are
shuffled with the input counted as right (a line's own is not, so its numbers differ a little):

    K names a step          product over the steps of m (m - 1) ... (m - k + 1) / m^k; m names are left, k of
                            them fall
    threshold               the last m names fall at once where 1/m >= tau: m! / m^m
    APD, judged by the joint of the same law, R < 1: what is accepted is possible, so 1

A model may score above its bound: one that prefers some of the right answers depends less on chance than an
ideal one, which knows that all are equal.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product

from unmask.decoding import Decoder
from unmask.decoding.apd import APD
from unmask.decoding.freedave import FreeDave
from unmask.decoding.leftright import LeftRight
from unmask.decoding.unmasking import Unmasking
from unmask.tasks import parallelbench

END = -1
ORDERS = ("left", "random", "confidence", "margin", "entropy")
Answer = tuple  # of names, or None where a canvas is masked
Marginals = Mapping[int, Mapping[int, float]]  # masked position -> token -> probability


def bound(decoder: Decoder, task: str, sizes: Sequence[int]) -> float | None:
    """The share of right answers of an ideal model; None for a decoder or setting that is not enumerated.

    sizes: of each document, the names in its line (`template`). The bound is their mean.
    """
    if task in parallelbench.PUZZLES or len(answers_of(task, 3)) == 1:
        return 1.0  # every token is certain, whatever else is masked
    if type(decoder) is APD and decoder.mixture_weight < 1:
        return 1.0 if plain(decoder) else None
    if type(decoder) is FreeDave and decoder.threshold is None:
        return 1.0  # the ids of one token a step
    rule = rule_of(decoder)
    if rule is None:
        return None
    found = {n: score(answers_of(task, n), rule) for n in set(sizes)}
    return sum(found[n] for n in sizes) / len(sizes)


@cache
def answers_of(task: str, n: int) -> tuple[Answer, ...]:
    """The right answers of a line of names 0 to n - 1, n being the new one, each up to the canvas's end."""
    rule, length = parallelbench.rule_of(task), parallelbench.canvas(task)
    found = parallelbench.right_answers(rule, range(n), n, 1)
    return tuple((*answer, *[END] * (length - len(answer))) for answer in found)


# --- rules ---


@dataclass(frozen=True)
class Rule:
    """How a decoder chooses. The block of the first mask is at work; a step takes its masks in this order.

    order: one of ORDERS: from the left, any, or from the surest on, equal ones from the left.
    greedy: the likeliest token (of equally likely ones any), else a drawn one.
    steps: of the whole canvas, spread evenly; None: as many masks as pass.
    passes: (how sure the masks are, from the surest on; a number k from 1) -> whether mask k is taken too.
    block_length: None, the canvas.
    """

    order: str
    greedy: bool
    steps: int | None = None
    passes: Callable[[Sequence[float], int], bool] | None = None
    block_length: int | None = None


def plain(decoder: Decoder) -> bool:
    """Whether it draws from the model's own distribution or takes its likeliest token, and keeps nothing."""
    unfiltered = decoder.top_p == 1 and decoder.top_k is None
    fresh = getattr(decoder, "cache", "none") == "none" and getattr(decoder, "kv_window", None) is None
    return unfiltered and fresh and decoder.temperature in (0, 1) and not getattr(decoder, "max_lookahead", 0)


def rule_of(decoder: Decoder) -> Rule | None:
    """The rule of a decoder, or None where it is none of these: a subclass may do something else."""
    if type(decoder) not in (APD, LeftRight, Unmasking) or not plain(decoder):
        return None
    greedy = decoder.temperature == 0
    if isinstance(decoder, APD):  # R = 1: the whole draft
        return Rule("left", greedy, passes=lambda values, k: True)
    if isinstance(decoder, LeftRight):
        return Rule("left", greedy, passes=lambda values, k: k < decoder.tokens_per_step)
    order = {"leftmost": "left"}.get(decoder.rank, decoder.rank)
    quota, block = decoder.quota, decoder.block_length
    if decoder.end_rule != "none" or order not in ORDERS:
        return None
    if quota == "even":
        return Rule(order, greedy, steps=decoder.steps or math.inf, block_length=block)
    passes = {
        "threshold": lambda values, k: values[k] >= decoder.threshold * (-1 if order == "entropy" else 1),
        "factor": lambda values, k: (k + 2) * (1 - values[k]) <= decoder.factor,
        "entropy_bound": lambda values, k: -sum(values[:k]) <= decoder.bound,
        "entropy_sum": lambda values, k: -sum(values[: k + 1]) < decoder.bound,
    }
    if quota not in passes:
        return None
    return Rule(order, greedy, passes=passes[quota], block_length=block)


# --- enumeration ---


def score(answers: Sequence[Answer], rule: Rule) -> float:
    """The probability that an answer comes out right. answers: all right ones, of one length."""
    length = len(answers[0])
    block = rule.block_length or length
    known: dict[tuple, float] = {}

    def after(canvas: Answer, spent: int, fitting: list[Answer]) -> float:
        """From a canvas on, of which `fitting` are left. spent: steps in the present block."""
        end = canvas.index(END) if END in canvas else length
        if None not in canvas[:end]:
            return 1.0
        if (canvas, spent) not in known:
            begin = canvas.index(None) // block * block
            masks = [p for p in range(begin, min(begin + block, length)) if canvas[p] is None]
            spent = spent if len(masks) < block else 0
            total = 0.0
            for share, commit in choices(rule, marginals(fitting, masks), _due(rule, masks, spent, length)):
                left = [a for a in fitting if all(a[p] == token for p, token in commit.items())]
                if left:
                    filled = tuple(commit.get(p, token) for p, token in enumerate(canvas))
                    total += share * after(filled, spent + 1 if rule.steps else 0, left)
            known[canvas, spent] = total
        return known[canvas, spent]

    return min(1.0, after((None,) * length, 0, list(answers)))  # rounding may add up to more


def _due(rule: Rule, masks: Sequence[int], spent: int, length: int) -> int | None:
    """Masks that an even schedule takes in this step, the earlier steps the remainder; else None."""
    if rule.steps is None:
        return None
    block = rule.block_length or length
    steps, blocks = min(rule.steps, length), length // block
    mine = steps // blocks + (masks[0] // block < steps % blocks)
    return -(-len(masks) // max(1, mine - spent))


def marginals(fitting: Sequence[Answer], masks: Sequence[int]) -> Marginals:
    """The probabilities of each masked position's tokens, by counting the answers that fit."""
    counts = {p: Counter(answer[p] for answer in fitting) for p in masks}
    return {p: {token: c / len(fitting) for token, c in count.items()} for p, count in counts.items()}


def choices(rule: Rule, known: Marginals, due: int | None) -> Iterator[tuple[float, dict[int, int]]]:
    """(probability, commit) of everything that a step may do. due: how many masks; None: as many as pass."""
    if rule.order == "random":
        sets = list(combinations(known, due))
        for positions in sets:
            for share, drawn in draws({p: known[p] for p in positions}, rule.greedy):
                yield share / len(sets), drawn
        return
    if rule.order != "confidence":  # what is taken does not depend on what is drawn
        values = {p: how_sure(rule.order, known[p]) for p in known}
        positions = taken(rule, values, due)
        yield from draws({p: known[p] for p in positions}, rule.greedy)
        return
    found: Counter[tuple] = Counter()
    for share, drawn in draws(known, rule.greedy):
        values = {p: known[p][token] for p, token in drawn.items()}
        found[tuple((p, drawn[p]) for p in taken(rule, values, due))] += share
    for commit, share in found.items():
        yield share, dict(commit)


def how_sure(order: str, distribution: Mapping[int, float]) -> float:
    """Of a position, whatever is drawn."""
    first, second = sorted([*distribution.values(), 0.0], reverse=True)[:2]
    entropy = sum(p * math.log(p) for p in distribution.values())
    return {"left": 0.0, "margin": first - second, "entropy": entropy}[order]


def taken(rule: Rule, values: Mapping[int, float], due: int | None) -> list[int]:
    """The positions that a step takes: the surest, and the next ones up to the first that does not pass."""
    order = sorted(values, key=lambda p: -values[p])  # stable: equal ones from the left
    if due is not None:
        return order[:due]
    sure, count = [values[p] for p in order], 1
    while count < len(order) and rule.passes(sure, count):
        count += 1
    return order[:count]


def draws(known: Marginals, greedy: bool) -> Iterator[tuple[float, dict[int, int]]]:
    """(probability, tokens by position) of independent draws; greedy: among the likeliest of each."""
    if greedy:
        most = {p: max(each.values()) for p, each in known.items()}
        ties = {p: [t for t, share in each.items() if share > most[p] - 1e-9] for p, each in known.items()}
        known = {p: dict.fromkeys(tokens, 1 / len(tokens)) for p, tokens in ties.items()}
    for drawn in product(*(each.items() for each in known.values())):
        tokens, shares = zip(*drawn, strict=True)
        yield math.prod(shares), dict(zip(known, tokens, strict=True))
