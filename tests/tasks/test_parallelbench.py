"""ParallelBench: generated lines and puzzles, their scores, and what an ideal model scores."""

import math
import random
from itertools import islice, permutations, product

import pytest
from transformers import AutoTokenizer

from unmask.configuration.composition import composed
from unmask.decoding.apd import APD
from unmask.decoding.leftright import LeftRight
from unmask.decoding.unmasking import Unmasking
from unmask.evaluation.prompts import text_ids
from unmask.paths import ROOT
from unmask.report import bounds
from unmask.report.bounds import Rule, answers_of, bound, rule_of
from unmask.tasks import parallelbench, prepare, problems, score_answers
from unmask.training.sources import source

SEVERAL = ("line_shuffle", "line_insert_random", "line_remove_random", "line_replace_random")
LINE = ["Mia", "Ava", "Noah"]
QUESTIONS = {  # of this line -> right, wrong
    "copy": ("Mia Ava Noah", "Ava Mia Noah"),
    "reverse": ("Noah Ava Mia", "Mia Ava Noah"),
    "sort": ("Ava Mia Noah", "Noah Mia Ava"),
    "shuffle": ("Noah Mia Ava", "Mia Ava Noah"),  # not as it was
    "insert_index": ("Mia Jack Ava Noah", "Mia Ava Jack Noah"),
    "insert_random": ("Mia Ava Noah Jack", "Jack Ava Mia Noah"),  # two have changed
    "remove_index": ("Mia Noah", "Mia Ava"),
    "remove_random": ("Ava Noah", "Noah Ava"),
    "replace_index": ("Mia Jack Noah", "Jack Ava Noah"),
    "replace_random": ("Mia Ava Jack", "Mia Jack Jack"),
}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ROOT / "checkpoints" / "tiny_qwen_large")


def question(rule):
    return parallelbench.ask(rule, LINE, "Jack", 2, 6)


def scored(question, answer, gold=""):
    ((extracted,),) = parallelbench.read_answers([[answer]], [{}])
    return parallelbench.keeps_rule({"question": question, "answer": gold}, [extracted])["rule"]


# --- the tasks ---


@pytest.mark.parametrize("rule", QUESTIONS)
def test_a_line_is_right_by_its_rule_and_by_no_other(rule):
    right, wrong = QUESTIONS[rule]
    asked = question(rule)
    for text in (f" {right}", right.replace(" ", ", "), f"The line is now: {right}."):
        assert scored(asked, text) == 1, text
    for text in (
        wrong,
        f"{right} Emma",
        right.rpartition(" ")[0],
        f"{right} {right}",
        right.lower(),
        "",
        "...",
    ):
        assert scored(asked, text) == 0, text


def test_every_permutation_but_the_input_is_a_shuffle():
    right = {order for order in permutations(LINE) if scored(question("shuffle"), " ".join(order))}
    assert right == set(permutations(LINE)) - {tuple(LINE)}


@pytest.mark.parametrize("rule", [rule for rule in QUESTIONS if rule.endswith("_random")])
def test_what_is_right_anywhere_is_what_undoes_to_the_line(rule):
    def undone(answer):
        """The line that the answer came from, as parallelbench.md says it."""
        answer = list(answer)
        if rule == "insert_random":
            return answer.count("Jack") == 1 and [name for name in answer if name != "Jack"] == LINE
        if rule == "remove_random":
            return any(LINE[:i] + LINE[i + 1 :] == answer for i in range(3))
        changed = [i for i, name in enumerate(answer) if name != LINE[i]]
        return len(changed) == 1 and answer[changed[0]] == "Jack"

    length = {"insert_random": 4, "remove_random": 2, "replace_random": 3}[rule]
    for answer in product([*LINE, "Jack"], repeat=length):
        assert scored(question(rule), " ".join(answer)) == undone(answer), answer


@pytest.mark.parametrize("task", parallelbench.TASKS)
def test_generated_answers_are_right_and_fit_the_canvas(task, tokenizer):
    lengths, sizes = set(), set()
    for asked, answer, template in islice(parallelbench.generate(task, 0), 300):
        assert scored(asked, answer, answer) == 1
        ids = text_ids(tokenizer, answer + tokenizer.eos_token)
        lengths.add(len(ids))
        sizes.add(int(template))
        if task.startswith("line"):  # a name is a token
            assert len(ids) == len(answer.split()) + 1
            assert len(parallelbench.read_line(asked)[0]) == int(template)
    assert max(lengths) <= parallelbench.canvas(task)
    if "insert" in task or task in parallelbench.PUZZLES:
        assert max(lengths) == parallelbench.canvas(task)
    of_lines = parallelbench.LONG if task.endswith("_long") else parallelbench.SHORT
    assert sizes == set(parallelbench.GAPS if task in parallelbench.PUZZLES else of_lines)


FINGERPRINTS = {  # recorded with every run: a change of these is a change of the benchmark
    "line_shuffle": "5d7a5376b2e8",
    "line_insert_random": "98a97be6e6fb",
    "line_sort_long": "38dd190ad2d6",
    "latin_square": "378faf7d4614",
    "sudoku": "a63788b1922f",
}


@pytest.mark.parametrize("task", FINGERPRINTS)
def test_test_problems_are_fixed_and_never_trained_on(task):
    assert problems.fingerprint(task) == FINGERPRINTS[task]
    held_out = {p.question for split in ("test", "validation") for p in problems.held_out(task, split)}
    assert len(held_out) == 2 * problems.HELD_OUT
    stream = problems.training_stream(task, 3, 500)
    assert not held_out & {p.question for p in stream}
    assert stream == problems.training_stream(task, 3, 500) != problems.training_stream(task, 4, 500)


def brute_force(task, cells):
    """All ways to fill 16 cells, cell by cell."""
    if 0 not in cells:
        return [cells]
    at = cells.index(0)
    row, column, found = at // 4, at % 4, []
    for digit in range(1, 5):
        clash = any(
            cells[other] == digit
            and (
                other // 4 == row
                or other % 4 == column
                or (task == "sudoku" and (other // 8, other % 4 // 2) == (at // 8, column // 2))
            )
            for other in range(16)
        )
        if not clash:
            found += brute_force(task, [*cells[:at], digit, *cells[at + 1 :]])
    return found


@pytest.mark.parametrize("task", parallelbench.PUZZLES)
def test_puzzles_have_one_solution(task):
    assert len(parallelbench.grids(task)) == {"latin_square": 576, "sudoku": 288}[task]
    for asked, answer, _ in islice(parallelbench.generate(task, 7), 60):
        cells = [int(digit) for digit in "".join(asked.split("\n")[1:])]
        (solution,) = brute_force(task, cells)
        assert "".join(map(str, solution)) == answer.replace("\n", "")
        assert scored(asked, answer.replace("\n", " "), answer) == 1
        wrong = answer[:-1] + ("1" if answer[-1] != "1" else "2")
        assert scored(asked, wrong, answer) == scored(asked, answer[:-1], answer) == 0
    assert len(parallelbench.solutions(task, "0" * 16)) > 1


@pytest.mark.parametrize("name", ["line_reverse_long", "line_insert_random", "sudoku"])
def test_each_is_a_task_of_lm_eval(name):
    (task,) = prepare(name, split="validation", num_fewshot=2)[1].values()
    assert task.config.task == name and task.config.num_fewshot == 2
    found = problems.held_out(name, "validation")
    assert list(task.eval_docs["question"]) == [problem.question for problem in found]
    answers = {i: problem.solution for i, problem in enumerate(found[:5])} | {5: "-"}
    rows = score_answers(task, answers)
    assert [(row["metric"], row["correct"]) for row in rows] == [
        *[("rule,answer", 1)] * 5,
        ("rule,answer", 0),
    ]
    assert [row["extraction_failed"] for row in rows] == [*[False] * 5, True]


def test_the_canvas_follows_from_the_name_of_the_task():
    for name in parallelbench.TASKS:
        task = composed("eval", ["task=parallelbench", f"task.name={name}"]).task
        assert task.max_new_tokens == parallelbench.canvas(name) and task.metric == "rule,answer"
    assert composed("eval", ["task=parallelbench", "task.max_new_tokens=32"]).task.max_new_tokens == 32


def test_a_name_that_there_is_not():
    with pytest.raises(ValueError, match="unknown task 'line_swap'; there are .*, line_copy, line_reverse"):
        prepare("line_swap")


def test_training_fills_the_canvas_of_the_task(tokenizer):
    examples = source("line_shuffle", tokenizer).examples(0, random.Random(0))
    for example in islice(examples, 20):
        ((_, answer),) = example.exchanges
        assert len(answer) == parallelbench.canvas("line_shuffle")
        assert answer[-1] == tokenizer.eos_token_id


# --- what an ideal model scores ---


def uniform(n):
    """Shuffled names, the input among the right answers."""
    return list(permutations(range(n)))


def product_of_steps(n, k):
    return math.prod(math.perm(m, min(k, m)) / m ** min(k, m) for m in range(n, 0, -k))


@pytest.mark.parametrize("n", [3, 4, 5])
def test_closed_forms_of_shuffle(n):
    """Each is enumerated: of all paths, the share that ends right."""
    for k in range(1, n + 1):
        formula = pytest.approx(product_of_steps(n, k))
        assert bounds.score(uniform(n), rule_of(LeftRight(tokens_per_step=k, temperature=1.0))) == formula
        if n % k == 0:
            for rank in ("random", "confidence", "margin", "entropy"):
                decoder = Unmasking(rank=rank, steps=n // k, temperature=1.0)
                assert bounds.score(uniform(n), rule_of(decoder)) == formula
    assert product_of_steps(n, n) == pytest.approx(math.factorial(n) / n**n)
    if n % 2 == 0:
        assert product_of_steps(n, 2) == pytest.approx(
            math.prod(range(n - 1, 0, -2)) / math.prod(range(n, 0, -2))
        )
    for m in range(1, n):  # from 1/m on, the last m names are taken at once
        rule = rule_of(Unmasking(quota="threshold", threshold=1 / m - 1e-9, temperature=1.0))
        assert bounds.score(uniform(n), rule) == pytest.approx(math.factorial(m) / m**m)


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_closed_forms_of_replace_random(n):
    for k in range(1, n + 2):
        none, once = 1.0, 0.0
        for m in range(n, 0, -k):  # the first step that puts the new name must do so once
            taken = min(k, m)
            once += none * taken / m * ((m - 1) / m) ** (taken - 1)
            none *= ((m - 1) / m) ** taken
        decoder = LeftRight(tokens_per_step=k, temperature=1.0)
        assert bound(decoder, "line_replace_random", [n]) == pytest.approx(once)
    for temperature in (0.0, 1.0):
        surely = Unmasking(quota="threshold", threshold=n / (n + 1), temperature=temperature)
        assert bound(surely, "line_replace_random", [n]) == pytest.approx(1)
    edge = (n - 1) / n - 1e-9
    assert bound(Unmasking(quota="threshold", threshold=edge), "line_replace_random", [n]) == 0
    at_once = Unmasking(quota="threshold", threshold=edge, temperature=1.0)
    names = [tuple(answer) for answer in parallelbench.right_answers("replace_random", range(n), n)]
    once = 1 - (1 - 1 / n) ** n
    assert bounds.score(names, rule_of(at_once)) == pytest.approx(once)
    # Where all n draw the new name, only the ends are sure: the step leaves the names as they were.
    with_ends = once - n**-n * (1 - once)
    assert bound(at_once, "line_replace_random", [n]) == pytest.approx(with_ends)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_token_a_step_loses_nothing(temperature):
    for task in SEVERAL:
        for decoder in (LeftRight(temperature=temperature), Unmasking(temperature=temperature)):
            assert bound(decoder, task, [3, 4]) == pytest.approx(1)


def test_where_one_answer_is_right_nothing_is_lost():
    at_once = LeftRight(tokens_per_step=20, temperature=1.0)
    for task in {*parallelbench.LINES, *parallelbench.PUZZLES} - {*SEVERAL}:
        assert bound(at_once, task, [3, 6]) == 1
        if task.startswith("line"):  # and enumeration agrees
            assert bounds.score(answers_of(task, 4), rule_of(at_once)) == 1


def test_the_bound_is_the_mean_over_the_documents_sizes():
    decoder = LeftRight(tokens_per_step=2, temperature=1.0)
    three, five = (bound(decoder, "line_shuffle", [n]) for n in (3, 5))
    assert bound(decoder, "line_shuffle", [3, 3, 3, 5]) == pytest.approx((3 * three + five) / 4)


def test_apd_judged_by_the_joint_is_right_and_the_whole_draft_is_not():
    assert bound(APD(mixture_weight=0.5, temperature=1.0), "line_shuffle", [4]) == 1
    whole = bound(APD(mixture_weight=1.0, temperature=1.0), "line_shuffle", [4])
    at_once = LeftRight(tokens_per_step=8, temperature=1.0)
    assert whole == pytest.approx(bound(at_once, "line_shuffle", [4])) and whole < 0.2


@pytest.mark.parametrize(
    "decoder",
    [
        LeftRight(temperature=0.5),
        LeftRight(temperature=1.0, top_p=0.9),
        LeftRight(kv_window=4),
        Unmasking(cache="dual", block_length=4),
        Unmasking(quota="dream"),
        Unmasking(end_rule="last"),
    ],
)
def test_settings_that_are_not_enumerated_have_no_bound(decoder):
    assert bound(decoder, "line_shuffle", [3]) is None
    assert bound(decoder, "line_copy", [3]) == 1


def test_equal_names_are_drawn_when_greedy():
    assert bounds.score([(0, 1), (1, 0)], Rule("left", True, passes=lambda values, k: True)) == 0.5
