"""Tasks whose loss under parallel decoding can be computed (after ParallelBench, arXiv 2510.04767).

A waiting line of names is copied, reversed, sorted, shuffled, and one name is inserted, removed or replaced,
at a given number or at any. Two puzzles, latin squares and sudokus of 4 x 4, have one solution each. Where a
question has one right answer, each token is certain whatever the others are, and an ideal model loses nothing
by writing all at once. Where it has several, their tokens depend on one another.

    task                        right is                                                       right answers
    line_copy, _reverse, _sort  the line so; sorted by name                                    1
    line_shuffle                the same names in any other order                              n! - 1
    line_insert_index, _random  the new name stands at the number; anywhere, all others stay   1; n + 1
    line_remove_index, _random  the name of that number is missing; any one                    1; n
    line_replace_index, _random the new name stands for that of the number; for any one        1; n
    latin_square, sudoku        the grid without a 0                                           1

Lines have 3 to 6 names, those of line_*_long 7 to 10; a document's `template` is that number, of a puzzle the
number of its gaps. Every name is one token of the tiny family, the space before it included, and so is every
digit: an answer of n names is n tokens and the end. All right answers are equally likely in training.

What the published benchmark has and these have not: a prompt that sorts by last name beside a label that
sorts by the first; sudokus with several solutions; words to a sentence, which a service scores.

Problem i of a seed depends on task and seed + i alone, as in problems.py, which makes the splits.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import permutations, product

from unmask.tasks.scoring import INVALID

SHORT, LONG = range(3, 7), range(7, 11)  # names in a line
RULES = {  # rule of a line -> how it is said
    "copy": "Copy the line.",
    "reverse": "Reverse the line.",
    "sort": "Sort the line by name.",
    "shuffle": "Shuffle the line.",
    "insert_index": "Add {new} at number {k}.",
    "insert_random": "Add {new} at any number.",
    "remove_index": "Remove number {k}.",
    "remove_random": "Remove any one name.",
    "replace_index": "Replace number {k} by {new}.",
    "replace_random": "Replace any one name by {new}.",
}
PUZZLES = {  # puzzle -> how it is said
    "latin_square": "Solve the latin square:",
    "sudoku": "Solve the sudoku:",
}
FREE = "-"  # a number of a line where nobody stands
GAPS = range(4, 9)  # of the 16 cells of a puzzle
LINES = [f"line_{rule}" for rule in RULES]
TASKS = [*LINES, *PUZZLES, *(f"{line}_long" for line in LINES)]
NAMES = """
    Amelia Ava Barbara Catherine Charlotte Craig David Dorothy Elijah Elizabeth Emily Emma Isabella Jack
    James Jennifer John Joseph Liam Mary Mia Michael Noah Olivia Patricia Richard Robert Sarah Sophia Susan
    Thomas William
""".split()  # noqa: SIM905  (in the order of the alphabet)

Line = Sequence[str]


def canvas(task: str) -> int:
    """Tokens of the longest right answer and its end."""
    if task in PUZZLES:
        return 20
    return 12 if task.endswith("_long") else 8


def generate(task: str, seed: int) -> Iterator[tuple[str, str, str]]:
    """(question, one of its right answers drawn at random, template) of a task's problems, without end."""
    while True:
        rng = random.Random(f"{task}/{seed}")
        yield _puzzle(task, rng) if task in PUZZLES else _line(task, rng)
        seed += 1


# --- the waiting line ---


def _line(task: str, rng: random.Random) -> tuple[str, str, str]:
    rule, n = rule_of(task), rng.choice(LONG if task.endswith("_long") else SHORT)
    *line, new = rng.sample(NAMES, n + 1)
    k = rng.randint(1, n + (rule == "insert_index"))
    question = ask(rule, line, new, k, LONG[-1] if task.endswith("_long") else SHORT[-1])
    if rule == "shuffle":
        answer = line
        while answer == line:
            answer = rng.sample(line, n)
    else:
        answer = rng.choice(right_answers(rule, line, new, k))
    return question, "".join(f" {name}" for name in answer), str(n)


def ask(rule: str, line: Line, new: str, k: int, width: int) -> str:
    """The question. A line has `width` numbers, a dash where nobody stands: so a name is equally far from its
    copy in the answer however long the line is, which small models learn much sooner."""
    return f"{RULES[rule].format(new=new, k=k)}\nLine: {' '.join([*line, *[FREE] * (width - len(line))])}"


def rule_of(task: str) -> str:
    """shuffle, of line_shuffle and of line_shuffle_long."""
    return task.removeprefix("line_").removesuffix("_long")


def right_answers(rule: str, line: Line, new: str | None = None, k: int | None = None) -> list[list[str]]:
    """All right answers of a line. new: the name that is not in it. k: a number from 1. Names may be any
    values that can be sorted; of shuffle there are n! - 1."""
    line, rule, where = list(line), rule.removesuffix("_index").removesuffix("_random"), rule
    if rule == "shuffle":
        return [list(order) for order in permutations(line) if list(order) != line]
    if rule in ("copy", "reverse", "sort"):
        return [{"copy": line, "reverse": line[::-1], "sort": sorted(line)}[rule]]
    anywhere = range(len(line) + (rule == "insert")) if where.endswith("_random") else [k - 1]
    put = [] if rule == "remove" else [new]
    return [line[:i] + put + line[i + (rule != "insert") :] for i in anywhere]


def answers_to(question: str) -> list[list[str]]:
    """All right answers of a question, each as the texts of its tokens, without its end.

    ValueError where it is none of the tasks' questions.
    """
    for puzzle, said in PUZZLES.items():
        if question.startswith(f"{said}\n"):
            return [
                list(_rows(grid)) for grid in solutions(puzzle, question.partition("\n")[2].replace("\n", ""))
            ]
    right = Right(question)
    return [
        [f" {name}" for name in answer]
        for answer in right_answers(right.rule, right.line, right.new, right.k)
    ]


def read_line(question: str) -> tuple[list[str], str | None, int | None]:
    """(line, new name, number) of a question; None where it has no such thing."""
    instruction, line = question.split("\nLine: ")
    new = [word for word in re.findall(r"\w+", instruction) if word in NAMES]
    k = re.findall(r"\d+", instruction)
    names = [name for name in line.split() if name != FREE]
    return names, *(new or [None]), *(map(int, k) if k else [None])


# --- puzzles ---


@cache
def grids(task: str) -> list[str]:
    """All 576 latin squares of 4 x 4, or the 288 of them that are sudokus: 16 digits each, row by row."""
    rows = ["".join(row) for row in permutations("1234")]
    found = []
    for square in product(rows, repeat=4):
        areas = [[row[i] for row in square] for i in range(4)]
        if task == "sudoku":
            areas += [square[i][j : j + 2] + square[i + 1][j : j + 2] for i in (0, 2) for j in (0, 2)]
        if all(len(set(area)) == 4 for area in areas):
            found.append("".join(square))
    return found


def _puzzle(task: str, rng: random.Random) -> tuple[str, str, str]:
    grid, count = rng.choice(grids(task)), rng.choice(GAPS)
    while True:
        gaps = set(rng.sample(range(16), count))
        puzzle = "".join("0" if i in gaps else digit for i, digit in enumerate(grid))
        if len(solutions(task, puzzle)) == 1:
            return f"{PUZZLES[task]}\n{_rows(puzzle)}", _rows(grid), str(count)


def solutions(task: str, puzzle: str) -> list[str]:
    """All grids that have the puzzle's digits, 16 cells of which a 0 is open."""
    left = (1 << len(grids(task))) - 1  # a bit for each grid: this is asked for every puzzle that is drawn
    for cell in enumerate(puzzle):
        left &= _having(task).get(cell, left)  # a 0 is had by none
    return [grid for number, grid in enumerate(grids(task)) if left >> number & 1]


@cache
def _having(task: str) -> dict[tuple[int, str], int]:
    """(cell, digit) -> the grids that have it, as bits."""
    found: Counter[tuple[int, str]] = Counter()
    for number, grid in enumerate(grids(task)):
        for cell in enumerate(grid):
            found[cell] += 1 << number
    return found


def _rows(cells: str) -> str:
    return "\n".join(cells[i : i + 4] for i in range(0, 16, 4))


# --- scoring ---


def read_answers(resps: list[list[str]], docs: list[dict]) -> list[list[str]]:
    """The filter `answer`: what follows the last colon, its words with one space between, or INVALID."""
    return [[" ".join(re.findall(r"\w+", r.rpartition(":")[2])) or INVALID for r in rs] for rs in resps]


def keeps_rule(doc: dict, results: list[str]) -> dict[str, float]:
    """The score `rule`: whether the answer is one of the right ones. Nothing else may stand in it."""
    question, answer = doc["question"], results[0]
    if "\nLine: " in question:
        return {"rule": float(answer.split() in Right(question))}
    return {"rule": float(answer.split() == doc["answer"].split())}


class Right:
    """The right answers of a line's question: `answer in Right(question)`. Of shuffle they are not listed."""

    def __init__(self, question: str):
        self.line, self.new, self.k = read_line(question)
        said = question.partition("\n")[0]
        words = {"new": self.new, "k": self.k}
        (self.rule,) = (rule for rule, text in RULES.items() if text.format(**words) == said)

    def __contains__(self, answer: Line) -> bool:
        if self.rule == "shuffle":
            return sorted(answer) == sorted(self.line) and list(answer) != self.line
        return list(answer) in right_answers(self.rule, self.line, self.new, self.k)
