"""Extraction and scoring that lm-eval has no filter or metric for: MATH's boxed answers and HumanEval's
programs."""

import ast
import re

from lm_eval.tasks.hendrycks_math.utils import is_equiv, last_boxed_only_string, remove_boxed

from unmask.tasks import execution

INVALID = "[invalid]"  # what lm-eval's regex filter writes where nothing matches, and so do ours
FENCE = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*", re.IGNORECASE)
IMPORTS = (ast.Import, ast.ImportFrom)
DEFINITIONS = (*IMPORTS, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def last_boxed(text: str) -> str:
    r"""What stands in the last \boxed{...} of a text, or INVALID. Forgives a lost backslash, a blank before
    the {."""
    try:
        return (
            remove_boxed(last_boxed_only_string(re.sub(r"\\?boxed\s*{", r"\\boxed{", text))).strip()
            or INVALID
        )
    except (AssertionError, TypeError):  # an \fbox; nothing at all
        return INVALID


def boxed(resps: list[list[str]], docs: list[dict]) -> list[list[str]]:
    """The filter of MATH."""
    return [[last_boxed(r) for r in answers] for answers in resps]


def equivalent(doc: dict, results: list[str]) -> dict[str, float]:
    """MATH's score: lm-eval's Hendrycks equivalence."""
    return {"exact_match": float(results[0] != INVALID and is_equiv(results[0], doc["answer"]))}


def programs(resps: list[list[str]], docs: list[dict]) -> list[list[str]]:
    """The filter of HumanEval: each answer as a program to test, see `program`."""
    pairs = zip(resps, docs, strict=True)
    return [[program(r, doc["prompt"], doc["entry_point"]) for r in answers] for answers, doc in pairs]


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
    """The top-level definitions of a program, if it can be parsed and its last function of that name has a
    body."""
    try:
        tree = ast.parse(source)
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ):  # the parser's answers to all that is not Python
        return None
    kept = [node for node in tree.body if isinstance(node, DEFINITIONS)]
    bodies = [node.body for node in kept if getattr(node, "name", None) == entry_point] or [[]]
    # What the prompt alone has is no body: a docstring and, in one problem, an import.
    if all(
        isinstance(n, IMPORTS) or (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
        for n in bodies[-1]
    ):
        return None
    return ast.unparse(ast.Module(kept, type_ignores=[]))
