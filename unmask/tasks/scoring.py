"""Extraction and scoring that lm-eval has no filter or metric for: MATH's boxes and HumanEval's programs.

HumanEval has two filters, each with its own score. Both run what they make of an answer, followed by the
problem's tests, in execution.py's subprocess.

                                    pass@1,create_test            pass@1,lenient
    whose                           lm-eval's humaneval_instruct, ours
                                    and so the paper's
    the program                     the prompt, and the answer    the prompt, and the first stretch
                                    up to its first fence (```)   that gives the function a body
    the answer opens a fence        ends there: no body           what stands in it is tried
    repeats the signature in prose  syntax error                  taken
    lost its first line's blanks    syntax error                  put back
    ends in prose, or half a line   syntax error                  cut off
    tries the function itself       runs too, and may fail        left out
    nothing found                   never                         INVALID

lm-eval also stops the model at "\\nclass", "\\ndef", "\\n#", "\\nif" and "\\nprint". Here stop strings are a
setting of the run, the same for both scores: eval_config/task/humaneval.yaml has none, `task.stop` adds them.
"""

import ast
import re

from lm_eval.tasks.hendrycks_math.utils import is_equiv, last_boxed_only_string, remove_boxed

from unmask.tasks import execution

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


# --- HumanEval ---


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
