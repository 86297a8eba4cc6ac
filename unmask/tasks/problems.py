"""The embedded tasks: word problems and sums generated from a seed, with no network and without end.

`gsm_symbolic`, `chain_sum` and `several_kinds` come from the reasoning-gym package. The first two have
worked solutions and are what the tiny family learns; the third, questions of eleven kinds with bare answers,
is for asking a pretrained model. The tasks of parallelbench.py have the same splits. This module fixes what
the package leaves open, once, for training and testing alike:

* the filter: every number in the question and in the worked solution is a whole number from 0 to
  `MAX_NUMBER`, and the texts fit a laptop's canvas (`MAX_QUESTION`, `MAX_SOLUTION` characters). About 16% of
  gsm_symbolic passes. Of several_kinds the length counts alone, and that the answer is a whole number;
* the splits: `test` and `validation` are the first problems of their own seeds. The training stream leaves
  out every question that occurs in either, by exact text, and `train` is the first problems of that stream.

reasoning-gym derives the generator of problem i from `seed + i`, so that two near seeds share problems: the
three seeds below are kept a billion apart.

What "held out" means here: new texts, not new arithmetic. gsm_symbolic has about a hundred templates with
small numbers, so most test problems have a training problem that differs in names and things only (79% of
them, after half of a training run), and a fifth of the worked solutions occur in the training stream word for
word.
"""

import hashlib
import itertools
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import reasoning_gym
from reasoning_gym.composite import DatasetSpec
from reasoning_gym.factory import ProceduralDataset

from unmask.tasks import parallelbench

MAX_NUMBER = 100
MAX_QUESTION = 440
MAX_SOLUTION = 300
SPLITS = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000}
HELD_OUT = 1000  # problems in `test` and in `validation`
TRAIN = 10_000  # problems in `train`
TRAIN_CHUNK = 1000  # `train` is chunks of this size of the training stream: another size is another split
CHUNK = 1000  # problems that reasoning-gym prepares at once

KINDS = {  # of several_kinds -> weight: half are word problems, of any size
    "gsm_symbolic": 10,
    "aiw": 1,
    "basic_arithmetic": 1,
    "calendar_arithmetic": 1,
    "count_primes": 1,
    "gcd": 1,
    "lcm": 1,
    "leg_counting": 1,
    "letter_counting": 1,
    "simple_equations": 1,
    "simple_geometry": 1,
}

# GSM-Symbolic's templates were made of GSM8K's test questions. Those of its first 50, on which a real model
# is measured, are left out of several_kinds; who measures on more of GSM8K has to look again.
OF_GSM8K = ("nutritional info", "and bought various types of", "drink that are")

# What the package is asked for, beyond its defaults. Short sums of numbers below 100 keep running totals
# inside the filter.
OPTIONS = {
    "gsm_symbolic": {},
    "chain_sum": {"min_terms": 2, "max_terms": 5, "min_digits": 1, "max_digits": 2},
    "several_kinds": {"datasets": [DatasetSpec(name, weight, config={}) for name, weight in KINDS.items()]},
}
WORKED = ("gsm_symbolic", "chain_sum")  # with worked solutions


@dataclass(frozen=True)
class Problem:
    """One problem: the question, a solution that ends in `#### answer` (worked out, of tasks in WORKED; of
    parallelbench's the answer), the answer alone, and what it was made from (`template_of`)."""

    question: str
    solution: str
    answer: str
    template: str = ""


def running_totals(expression: str) -> str:
    """The worked solution of a chain sum: one line per operation, each starting from the total so far."""
    first, *rest = expression.split()
    total, lines = int(first), []
    for operator, term in zip(rest[::2], rest[1::2], strict=True):
        new = total + int(term) if operator == "+" else total - int(term)
        lines.append(f"{total} {operator} {term} = {new}")
        total = new
    return "\n".join([*lines, f"#### {total}"])


def solution_of(task: str, row: dict) -> str:
    """The solution of a row of the package."""
    if task == "gsm_symbolic":
        return row["metadata"]["answer_cot"]
    return running_totals(row["metadata"]["expression"]) if task == "chain_sum" else f"#### {row['answer']}"


def template_of(task: str, row: dict, index: int, dataset: ProceduralDataset) -> str:
    """What row `index` of a data set of the package was made from: of gsm_symbolic the number of its
    template, of chain_sum the number of terms, of several_kinds the kind."""
    if task == "gsm_symbolic":
        return str(dataset.task_indices[index])
    return str(row["metadata"]["num_terms" if task == "chain_sum" else "source_dataset"])


def admitted(task: str, problem: Problem) -> bool:
    """The documented filter, for training and test alike."""
    if task not in WORKED:
        leaked = any(phrase in problem.question for phrase in OF_GSM8K)
        whole = re.fullmatch(r"-?\d+", problem.answer)
        return len(problem.question) <= MAX_QUESTION and bool(whole) and not leaked
    numbers = re.findall(r"-?\d[\d,.]*\d|-?\d", problem.solution) + re.findall(
        r"\d[\d,.]*\d|\d", problem.question
    )
    # "93-38=55" is a difference and "= -7" a negative number: only a sign that nothing to compute precedes
    # counts.
    negative = re.search(r"(?:=|####)\s*[^\d\s]?-[^\d\s]?\d", problem.solution)
    return (
        not negative
        and len(problem.question) <= MAX_QUESTION
        and len(problem.solution) <= MAX_SOLUTION
        and all(n.lstrip("-").isdigit() and int(n.lstrip("-")) <= MAX_NUMBER for n in numbers)
    )


def generate(task: str, seed: int) -> Iterator[Problem]:
    """All admitted problems of a seed, in order, without end."""
    if task in parallelbench.TASKS:
        for question, answer, made_from in parallelbench.generate(task, seed):
            yield Problem(question, answer, answer, made_from)
    if task not in OPTIONS:
        raise ValueError(f"unknown embedded task {task!r}; there are {', '.join(OPTIONS)}")
    for start in itertools.count(seed, CHUNK):
        kind = "composite" if task == "several_kinds" else task
        rows = reasoning_gym.create_dataset(kind, seed=start, size=CHUNK, **OPTIONS[task])
        for index in range(CHUNK):
            row = rows[index]
            made_from = template_of(task, row, index, rows)
            problem = Problem(row["question"], solution_of(task, row), row["answer"], made_from)
            if admitted(task, problem):
                yield problem


@cache
def held_out(task: str, split: str) -> tuple[Problem, ...]:
    """The fixed problems of `test` or `validation`: the first `HELD_OUT` distinct questions of the split's
    seed.

    Those of validation are none of test.
    """
    if split not in SPLITS or split == "train":
        raise ValueError(f"split must be 'test' or 'validation', not {split!r}")
    taken = {p.question for p in held_out(task, "test")} if split == "validation" else set()
    problems: dict[str, Problem] = {}
    for problem in generate(task, SPLITS[split]):
        if problem.question not in taken:
            problems.setdefault(problem.question, problem)
        if len(problems) == HELD_OUT:
            return tuple(problems.values())


def fingerprint(task: str, split: str = "test") -> str:
    """Hash of a split's texts, recorded with every run: equal hashes mean equal problems in equal order."""
    rows = [[p.question, p.solution, p.answer] for p in held_out(task, split)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


def training_stream(task: str, chunk: int, size: int) -> list[Problem]:
    """Chunk number `chunk` of the training stream: `size` admitted problems, none of them held out.

    A pure function of its arguments, so that training resumes anywhere without replaying.
    """
    forbidden = {p.question for split in ("test", "validation") for p in held_out(task, split)}
    # A chunk reads from its own stretch of seeds: wide enough that it is never used up.
    source = generate(task, SPLITS["train"] + chunk * size * 20)
    return list(itertools.islice((p for p in source if p.question not in forbidden), size))


def training_split(task: str) -> Iterator[Problem]:
    """The fixed problems of `train`: the first `TRAIN` distinct questions of the training stream.

    Generated as they are taken; all of them take a few seconds.
    """
    stream = (p for chunk in itertools.count() for p in training_stream(task, chunk, TRAIN_CHUNK))
    seen: set[str] = set()
    for problem in stream:
        if problem.question in seen:
            continue
        seen.add(problem.question)
        yield problem
        if len(seen) == TRAIN:
            return


def drill(rng: random.Random, lines: int) -> list[tuple[str, str]]:
    """Arithmetic in the formats of the worked solutions: pairs (expression with "=", result).

    The numbers pass the filter. These are the cheapest tokens from which a small model learns to calculate.
    No drill is a held-out chain sum.
    """
    pairs = (expression(rng) for _ in itertools.count())
    return list(itertools.islice((p for p in pairs if _bare(p[0]) not in _held_out_sums()), lines))


def _bare(expression: str) -> str:
    return re.sub(r"[^\d+-]", "", expression) if re.fullmatch(r"[\d$€£+\-= ]+", expression) else expression


@cache
def _held_out_sums() -> frozenset[str]:
    return frozenset(
        _bare(p.question.split(": ")[-1]) for s in ("test", "validation") for p in held_out("chain_sum", s)
    )


def expression(rng: random.Random) -> tuple[str, str]:
    """One random calculation: ("17 + 28 =", " 45")."""
    top = MAX_NUMBER
    unit = rng.choice(["", "", "", "$", "€", "£"])
    gap = rng.choice(["", " ", " "])
    kinds = {"add": 4, "sub": 5, "mul": 4, "div": 2, "sum": 5, "chain": 4, "percent": 1, "fraction": 1}
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    # The square root bends the draw towards the large numbers, of which there are more pairs to learn.
    big = int(top * rng.random() ** 0.5)
    if kind == "add":
        a = rng.randint(0, big)
        terms, result = [f"{unit}{a}", "+", f"{unit}{big - a}"], big
    elif kind == "sub":
        b = rng.randint(0, big)
        terms, result = [f"{unit}{big}", "-", f"{unit}{b}"], big - b
    elif kind == "mul":
        a = rng.randint(1, rng.choice([12, top]))
        b = rng.randint(0, top // a)
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
        terms, result = [f"{a}", rng.choice(["*", "*", "*", "x", "×"]), f"{unit}{b}"], a * b
    elif kind == "div":
        b = rng.randint(1, rng.choice([12, top // 2]))
        result = rng.randint(0, top // b)
        terms = [f"{unit}{b * result}", rng.choice(["/", "/", "÷"]), f"{b}"]
    elif kind == "sum":
        # The distances between sorted cuts: terms of any size that add up to the drawn total.
        cuts = sorted(rng.randint(0, big) for _ in range(rng.randint(2, 4)))
        parts = [b - a for a, b in zip([0, *cuts], [*cuts, big], strict=True)]
        terms, result = " + ".join(f"{unit}{part}" for part in parts).split(" "), big
    elif kind == "chain":
        result = rng.randint(0, top)
        terms = [f"{unit}{result}"]
        for _ in range(rng.randint(2, 4)):
            add = rng.random() < 0.6
            step = rng.randint(0, min(top // 2, top - result if add else result))
            result += step if add else -step
            terms += ["+" if add else "-", f"{unit}{step}"]
    elif kind == "percent":
        base = rng.randrange(20, top + 1, 10)
        share = rng.choice([s for s in range(5, 100, 5) if base * s % 100 == 0])
        result = base * share // 100
        terms = [f"{share}%", "*", f"{unit}{base}"]
    else:
        b = rng.randint(2, 10)
        a = rng.randint(1, b)
        base = b * rng.randint(1, top // b)
        result = base // b * a
        left, right = [f"{base}", "*", f"{a}/{b}"], [f"{a}/{b}", "*", f"{base}"]
        terms = left if rng.random() < 0.5 else right
    return gap.join([*terms, "="]), f"{gap}{unit}{result}"
