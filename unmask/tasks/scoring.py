"""Extraction and scoring that lm-eval has no filter or metric for: MATH's answers and programs.

HumanEval has three filters, each with its own score. All run what they make of an answer, followed by the
problem's tests, in execution.py's subprocess.

                                    pass@1,create_test            pass@1,lenient
    whose                           lm-eval's humaneval_instruct, ours
                                    and so APD's
    the program                     the prompt, and the answer    the prompt, and the first stretch
                                    up to its first fence (```)   that gives the function a body
    the answer opens a fence        ends there: no body           what stands in it is tried
    repeats the signature in prose  syntax error                  taken
    lost its first line's blanks    syntax error                  put back
    ends in prose, or half a line   syntax error                  cut off
    tries the function itself       runs too, and may fail        left out
    nothing found                   never                         INVALID

pass@1,sanitised is D2F's, dParallel's and Dream's (EvalPlus's sanitiser, which all of them copy): see
`sanitised`. MBPP has it too, without a signature, beside pass@1,raw: lm-eval's, the answer as it is.

MATH has three scores. With the 500 reference solutions of MATH-500 as answers:

                                    reads                                     right
    exact_match,final-answer        Minerva's last sentence alone, so 0 for   0; 500 where that sentence
                                    an answer that only boxes                 follows
    math_verify,text                any final answer, by math-verify          500
    math_verify_0.4.8,text          the same, as lm-eval 0.4.8 calls it: the  402
                                    reference is given bare, and cannot be
                                    read where it is no plain number

lm-eval also stops the model at "\\nclass", "\\ndef", "\\n#", "\\nif" and "\\nprint". Here stop strings are a
setting of the run, the same for both scores: eval_config/task/humaneval.yaml has none, `task.stop` adds them.
"""

import ast
import contextlib
import importlib.util
import re
import threading
from functools import cache
from types import ModuleType
from unittest import mock

import sympy
from lm_eval.tasks.hendrycks_math.utils import is_equiv, last_boxed_only_string, remove_boxed

from unmask.tasks import execution

CPU_MBPP = 10  # seconds of processor time for a program of MBPP and its tests
SECONDS = 5  # that a comparison of two formulas may take, as in lm-eval
INVALID = "[invalid]"  # what lm-eval's regex filter writes where nothing matches, and so do ours
FENCE = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*", re.IGNORECASE)
IMPORTS = (ast.Import, ast.ImportFrom)
DEFINITIONS = (*IMPORTS, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
# What the parser, and writing a tree as text again, answer to all that is not Python or nests too deeply.
NO_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)

# --- MATH ---


def last_boxed(text: str) -> str:
    r"""What stands in the last \boxed{...} of a text, or INVALID.

    Forgives a lost backslash and a blank before the {.
    """
    forgiven = re.sub(r"\\?boxed\s*{", r"\\boxed{", text)
    try:
        return remove_boxed(last_boxed_only_string(forgiven)).strip() or INVALID
    except (AssertionError, TypeError):  # an \fbox; nothing at all
        return INVALID


def boxed(resps: list[list[str]], docs: list[dict]) -> list[list[str]]:
    """The filter of MATH."""
    return [[last_boxed(r) for r in answers] for answers in resps]


def equivalent(doc: dict, results: list[str]) -> dict[str, float]:
    """MATH's score: lm-eval's Hendrycks equivalence."""
    return {"exact_match": float(results[0] != INVALID and is_equiv(results[0], doc["answer"]))}


@cache
def _minerva() -> ModuleType:
    """lm-eval's module of Minerva's task. It insists on antlr 4.11, for sympy's LaTeX parser, and Hydra pins
    4.9, on which all but that parser runs: math-verify's stands in for it (`same_answer`)."""
    importlib.import_module("math_verify")  # before: it looks at the version too, and must see the real one
    with mock.patch("importlib.metadata.version", return_value="4.11"):
        return importlib.import_module("lm_eval.tasks.minerva_math.utils")


def check_math_verify() -> None:
    """ValueError where the package that MATH's scores need is not installed."""
    if not importlib.util.find_spec("math_verify"):
        raise ValueError("tasks minerva_math and math500 are scored by math-verify: pip install math-verify")


def final_answers(resps: list[list[str]], docs: list[dict]) -> list[list[str]]:
    """The filter final-answer: what "Final Answer: The final answer is ... I hope it is correct." says."""
    return [[_final_answer(r) for r in answers] for answers in resps]


def _final_answer(text: str) -> str:
    found = _minerva().get_unnormalized_answer(text)
    return INVALID if found == "[invalidanswer]" else _minerva().normalize_final_answer(found)


def math_scores(doc: dict, results: list[str]) -> dict[str, float]:
    """The scores of minerva_math and math500; each metric is meant for one filter, see `metrics_of`."""
    answer, solution = results[0], doc["solution"]
    bare = _minerva().remove_boxed(_minerva().last_boxed_only_string(solution))
    wanted = _minerva().normalize_final_answer(bare)
    return {
        "exact_match": float(answer != INVALID and same_answer(answer, wanted)),
        "math_verify": verified(solution, answer),
        "math_verify_0.4.8": verified(wanted, answer),
    }


def same_answer(answer: str, gold: str) -> bool:
    """lm-eval's equivalence of two normalised answers: equal texts, or a difference that sympy simplifies to
    0. LaTeX is parsed by math-verify's parser."""
    from latex2sympy2_extended import latex2sympy

    if answer == gold:
        return True
    try:
        with _minerva().timeout(SECONDS) if _timed() else contextlib.nullcontext():
            return bool(sympy.simplify(latex2sympy(answer) - latex2sympy(gold)) == 0)
    except Exception:  # no LaTeX, no number, too long: the parser and sympy raise a dozen kinds
        return False


def verified(gold: str, answer: str) -> float:
    """1.0 where math-verify finds the gold answer in the answer, else 0.0."""
    from math_verify import parse, verify

    seconds = SECONDS if _timed() else None
    read = [parse(text, parsing_timeout=seconds) for text in (gold, answer)]
    return float(verify(*read, timeout_seconds=seconds))


def _timed() -> bool:
    """Whether a comparison can be cut off: by a signal, which only the main thread gets."""
    return threading.current_thread() is threading.main_thread()


# --- programs ---


def stock_programs(resps: list[list[str]], docs: list[dict]) -> list[list[str]]:
    """The filter create_test: `build_predictions_instruct` of lm_eval/tasks/humaneval/utils.py.

    Written again because that module fetches Hugging Face's code_eval when it is imported.
    """
    return [[doc["prompt"] + r.split("```")[0] for r in answers] for answers, doc in _pairs(resps, docs)]


def lenient_programs(resps: list[list[str]], docs: list[dict]) -> list[list[str]]:
    """The filter lenient: each answer as a program to test, see `program`."""
    return [
        [program(r, doc["prompt"], doc["entry_point"]) for r in answers]
        for answers, doc in _pairs(resps, docs)
    ]


def _pairs(resps: list[list[str]], docs: list[dict]):
    return zip(resps, docs, strict=True)


def sanitised_functions(resps: list[list[str]], docs: list[dict]) -> list[list[str]]:
    """HumanEval's filter sanitised: the signature, a newline and the answer's code."""
    return [
        [sanitised(f"{doc['prompt']}\n{code_of(r)}", doc["entry_point"]) for r in answers]
        for answers, doc in _pairs(resps, docs)
    ]


def sanitised_programs(resps: list[list[str]], docs: list[dict]) -> list[list[str]]:
    """MBPP's filter sanitised."""
    return [[sanitised(code_of(r)) for r in answers] for answers in resps]


def code_of(answer: str) -> str:
    """What follows the first line ```python, up to the next fence; without such a line, all up to the first
    fence."""
    _, opened, inside = answer.partition("```python\n")
    return (inside if opened else answer).partition("```")[0]


def sanitised(text: str, entry_point: str | None = None) -> str:
    """EvalPlus's sanitiser, as the published evaluations have it.

    Of the first 100 lines, the run of whole lines that parses and has most lines that are not blank. Of that
    the imports, the classes, the assignments to a name, and the functions that return something; with an
    entry point only what it reaches by name. INVALID where nothing is left.
    """
    lines = text.replace("\r\n", "\n").replace("\t", "    ").strip().splitlines()[:100]
    body = _longest_program(lines)
    imports = [node for node in body if isinstance(node, IMPORTS)]
    named = {name: node for node in body if (name := _name_of(node))}
    kept = _reachable(entry_point, named) if entry_point else set(named)
    chosen = [*imports, *(node for name, node in named.items() if name in kept)]
    return "\n".join(map(ast.unparse, chosen)) or INVALID


def _longest_program(lines: list[str]) -> list[ast.stmt]:
    spans = ((i, j) for i in range(len(lines)) for j in range(i + 1, len(lines) + 1))
    full = [bool(line.strip()) for line in lines]
    # The longest first, of equally long ones the first: the others need no parsing.
    for i, j in sorted(spans, key=lambda span: -sum(full[span[0] : span[1]])):
        with contextlib.suppress(*NO_PYTHON):
            return ast.parse("\n".join(lines[i:j])).body
    return []


def _name_of(node: ast.stmt) -> str | None:
    """The name that a statement defines, for `sanitised`."""
    if isinstance(node, ast.FunctionDef):
        return node.name if any(isinstance(inner, ast.Return) for inner in ast.walk(node)) else None
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return node.name if isinstance(node, ast.ClassDef) else None


def _reachable(entry_point: str, named: dict[str, ast.stmt]) -> set[str]:
    found, queue = set(), [entry_point]
    while queue:
        name = queue.pop()
        if name in found or name not in named:
            continue
        found.add(name)
        queue += [node.id for node in ast.walk(named[name]) if isinstance(node, ast.Name)]
    return found


def mbpp_passes(doc: dict, results: list[str]) -> dict[str, float]:
    """MBPP's score: the program, then its asserts; of MBPP+ its test program. (test_setup_code is ignored, as
    in lm-eval: one reference solution in 500 needs it. Another takes 2.6 seconds: hence CPU_MBPP.)"""
    imports = "\n".join(doc.get("test_imports") or [])
    asserts = "\n".join(doc["test_list"])
    test = f"{results[0]}\n{imports}\n{doc.get('test') or asserts}\n"
    return {"pass@1": float(results[0] != INVALID and execution.run(test, cpu=CPU_MBPP) == "passed")}


def passes(doc: dict, results: list[str]) -> dict[str, float]:
    """HumanEval's score. Runs the program and its tests in a limited subprocess, see execution.py."""
    test = f"{results[0]}\n\n{doc['test']}\n\ncheck({doc['entry_point']})\n"
    return {"pass@1": float(results[0] != INVALID and execution.run(test) == "passed")}


def program(answer: str, prompt: str, entry_point: str) -> str:
    """The program in an answer to a HumanEval prompt (imports, signature, docstring), or INVALID.

    An answer may go on where the prompt ends, repeat the signature, or stand in a fence among prose. So every
    stretch between fences, in order, is appended to the prompt and loses last lines until the whole can be
    parsed; the first that gives the function a body is it. Only definitions, imports and assignments are
    kept: the model's own examples after the function would run too, and may fail. Nothing is executed here.
    """
    stretches = FENCE.split(answer)
    # Second try: the indentation of the first line is lost when a decoder strips leading blanks.
    for indent in ("", "    "):
        for stretch in stretches:
            lines = (indent + stretch.lstrip() if indent else stretch).splitlines()
            for end in range(len(lines), 0, -1):
                source = prompt + "\n".join(lines[:end])
                if (kept := _definitions(source, entry_point)) is not None:
                    return kept
    return INVALID


def _definitions(source: str, entry_point: str) -> str | None:
    """The top-level definitions of a program, if its last function of that name has a body; else None."""
    try:
        kept = [node for node in ast.parse(source).body if isinstance(node, DEFINITIONS)]
        bodies = [node.body for node in kept if getattr(node, "name", None) == entry_point]
        if not bodies or all(map(_is_no_body, bodies[-1])):
            return None
        return ast.unparse(ast.Module(kept, type_ignores=[]))
    except NO_PYTHON:
        return None


def _is_no_body(node: ast.stmt) -> bool:
    """Whether the prompt alone can have it in its function: a docstring and, in one problem, an import."""
    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return constant or isinstance(node, IMPORTS)
