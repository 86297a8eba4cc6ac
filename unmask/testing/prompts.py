"""Make published prompts anew:  python -m unmask.prompts tests/golden/prompts/prompts.jsonl [DATA]

A line of the file is a prompt that the published code of a paper made: paper, table, model, task, shots,
processes, document, text, until, sure. Here the same prompt is made by this project's configurations (CASES)
and compared character for character. Exit code 1 if one differs whose `sure` is true.

DATA: a folder with the documents (gsm8k_test.jsonl, gsm8k/train.jsonl.gz, HumanEval.jsonl.gz, mbpp/,
mbpp_sanitized/, math500/, mt_bench/). Default: the rows that the prompts themselves show, in rows.json beside
the file, or else ../shared/data.

The chat templates are those of the published tokenizers, written down in chat_templates.py.
"""

import argparse
import gzip
import itertools
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from unmask.configuration.command_line import refusals
from unmask.configuration.composition import composed
from unmask.configuration.settings import typed
from unmask.evaluation.prompts import PromptBuilder
from unmask.paths import ROOT
from unmask.records.documents import chosen
from unmask.tasks import check_task, prepare
from unmask.testing.chat_templates import BASE, DREAM, LLADA, QWEN3, QWEN25, tokenizer

FILES = {  # where the documents of a task lie in DATA
    "gsm8k_test.jsonl": ("gsm8k", "gsm8k_cot", "gsm8k_cot_zeroshot", "speed_gsm8k"),
    "HumanEval.jsonl.gz": ("humaneval_plain", "humaneval_wrapped", "humaneval_begun", "speed_humaneval"),
    "mbpp/test.jsonl": ("mbpp", "mbpp_begun"),
    "mbpp_sanitized/test.jsonl": ("speed_mbpp",),
    "math500/test.jsonl": ("math", "minerva_math", "speed_math500"),
    "mt_bench/test.jsonl": ("speed_mt_bench",),
}
FILE_OF = {task: file for file, tasks in FILES.items() for task in tasks}
TRAIN = "gsm8k/train.jsonl.gz"
TEXT = ["task.prompt=text"]
ONE_TURN = ["task.prompt=one_turn", "task.bos=false"]
HELPFUL = "task.system_prompt=You are a helpful assistant."

# (paper, table or None for all, chat template or None for all, published task) -> settings of eval.py.
# {shots} and {processes} are the line's.
CASES: dict[tuple, list[str]] = {
    ("APD", None, None, "gsm8k"): ["task=gsm8k"],
    ("APD", None, DREAM, "hendrycks_math"): ["task=math"],
    ("APD", None, QWEN25, "hendrycks_math"): ["task=math", HELPFUL],
    ("APD", None, None, "humaneval_instruct"): ["task=humaneval_begun", HELPFUL],
    ("D2F", None, LLADA, "gsm8k"): ["task=gsm8k_shots", "task.bos=true"],
    ("D2F", None, LLADA, "mbpp"): ["task=mbpp", "task.bos=true"],
    ("D2F", None, LLADA, "minerva_math"): ["task=minerva_math", "task.prompt=chat"],
    ("D2F", None, None, "humaneval"): ["task=humaneval_plain"],
    ("D2F", None, BASE, "gsm8k_cot"): ["task=gsm8k_cot"],
    ("D2F", None, BASE, "gsm8k"): ["task=gsm8k_shots", *TEXT, "task.bos=true"],
    ("D2F", None, BASE, "mbpp"): ["task=mbpp", *TEXT, "task.bos=true"],
    ("D2F", None, BASE, "minerva_math"): ["task=minerva_math"],
    ("Fast-dLLM", "1", LLADA, "gsm8k"): ["task=gsm8k_shots", *ONE_TURN],
    ("Fast-dLLM", "1", LLADA, "humaneval"): ["task=humaneval_plain", *ONE_TURN],
    ("Fast-dLLM", "1", LLADA, "mbpp"): ["task=mbpp", *ONE_TURN],
    ("Fast-dLLM", "1", LLADA, "minerva_math"): ["task=minerva_math", *ONE_TURN],
    ("Fast-dLLM", "2", BASE, "gsm8k"): ["task=gsm8k_shots", *TEXT, "task.bos=true"],
    ("Fast-dLLM", "2", BASE, "humaneval"): ["task=humaneval_plain"],
    ("Fast-dLLM", "2", BASE, "mbpp"): ["task=mbpp", *TEXT, "task.bos=true"],
    ("Fast-dLLM", "2", BASE, "minerva_math"): ["task=minerva_math"],
    ("d3LLM", None, BASE, "gsm8k"): ["task=gsm8k_shots", *TEXT],
    ("d3LLM", None, BASE, "gsm8k_cot_zeroshot"): ["task=gsm8k_cot_zeroshot", *TEXT],
    ("d3LLM", None, BASE, "minerva_math"): ["task=minerva_math", "task.bos=false"],
    ("d3LLM", None, LLADA, "humaneval"): ["task=humaneval_wrapped"],
    ("d3LLM", None, LLADA, "mbpp"): ["task=mbpp", *ONE_TURN],
    ("d3LLM", None, DREAM, "gsm8k"): ["task=gsm8k_shots", *ONE_TURN, "task.shots=drawn_twice"],
    ("d3LLM", None, DREAM, "gsm8k_cot_zeroshot"): ["task=gsm8k_cot_zeroshot"],
    ("d3LLM", None, DREAM, "humaneval_instruct"): ["task=humaneval_begun"],
    ("d3LLM", None, DREAM, "mbpp_instruct"): ["task=mbpp_begun"],
    ("d3LLM", None, DREAM, "minerva_math"): ["task=minerva_math", *ONE_TURN],
    ("dParallel", "1", LLADA, "gsm8k"): ["task=gsm8k_boxed"],
    ("dParallel", "1", LLADA, "humaneval"): ["task=humaneval_wrapped"],
    ("dParallel", "1", LLADA, "mbpp"): ["task=mbpp", *ONE_TURN],
    ("dParallel", "1", LLADA, "minerva_math"): ["task=minerva_math", *ONE_TURN],
    ("dParallel", "2", DREAM, "gsm8k_cot_zeroshot"): ["task=gsm8k_cot_zeroshot"],
    ("dParallel", "2", DREAM, "humaneval_instruct"): ["task=humaneval_begun"],
    ("dParallel", "2", DREAM, "mbpp_instruct"): ["task=mbpp_begun"],
    ("dParallel", "2", DREAM, "minerva_math"): ["task=minerva_math", *ONE_TURN],
    **{
        ("DFlash", None, QWEN3, name): [f"task=speed_{name.replace('-', '_')}"]
        for name in ("gsm8k", "math500", "humaneval", "mbpp", "mt-bench")
    },
}


def template_of(line: Mapping) -> str:
    """Which of chat_templates.py a line was made with. A chat model that was asked in plain text counts as a
    base model, and has the start token of its own tokenizer."""
    named = line["chat_template"]
    starts = {"LLaDA": LLADA, "Dream-Instruct": DREAM, "Qwen3": QWEN3, "Qwen2.5": QWEN25}
    found = [template for start, template in starts.items() if named and named.startswith(start)]
    if found:
        return found[0]
    # D2F's HumanEval on LLaDA: no template, the other model's start token
    return LLADA if "LLaDA" in line["model"] and line["paper"] == "D2F" else BASE


def settings_of(line: Mapping) -> list[str]:
    """eval.py's settings for the prompt of a line; ValueError where none are known."""
    paper, table, template, task = line["paper"], line["table"], template_of(line), line["task"]
    for case, overrides in CASES.items():
        wanted = zip(case, (paper, table, template, task), strict=True)
        if all(ours in (None, theirs) for ours, theirs in wanted):
            drawn = [f"task.shot_processes={line['processes']}"] if line["processes"] else []
            return [*overrides, f"task.num_fewshot={line['shots']}", *drawn]
    raise ValueError(f"{paper}, table {table}, {task}: no setting is known that makes this prompt")


class Published:
    """Makes published prompts by this project's configurations, from documents in a folder."""

    def __init__(self, data: Path):
        self.data, self.known = data, {}

    def make(self, line: Mapping) -> tuple[str, list[str]]:
        """The prompt of a line made anew, and the task's stop strings.

        ValueError where no setting is known, or the document does not come at the line's position in a run.
        """
        key = (template_of(line), *settings_of(line))
        if key not in self.known:
            self.known[key] = self._prepared(*key)
        tasks, order, stop = self.known[key]
        number = line["document"]
        if line["task"] == "mt-bench":
            number = 2 * number + line["turn"] - 1
        elif order[line.get("position_in_run", number)] != number:
            raise ValueError(
                f"document {number} does not come at position {line['position_in_run']} of a run"
            )
        if len(tasks) == 1:
            ((task, prompt_of),) = tasks
            return prompt_of(number, task.eval_docs[number]), stop
        problem = self._rows("math500/test.jsonl")[number]["problem"]
        for task, prompt_of in tasks:  # MATH by subject: the row is found by its text
            for doc in task.eval_docs:
                if doc["problem"] == problem:
                    return prompt_of(0, doc), stop
        raise ValueError(f"{line['unique_id']}: not among the documents")

    def _prepared(self, template: str, *overrides: str) -> tuple[list, list[int], list[str]]:
        """(tasks with their prompts, document numbers in the order in which they are asked, stop strings)."""
        models = ["model=qwen3_4b"] if template == QWEN3 else []
        cfg = typed(composed("eval", [*models, *overrides]))
        task = cfg.task
        check_task(task)
        data = str(self.data / FILE_OF[task.name])
        if task.shots != "first":
            data = self._both_splits()
        _, tasks = prepare(task.name, data, True, task.split, task.num_fewshot, task.shots)
        builder = PromptBuilder(task, tokenizer(template), cfg.model.chat_options if models else {})
        counts = {name: len(each.eval_docs) for name, each in tasks.items()}
        order = chosen(counts, task.limit, task.subset_seed, None, task.documents)
        if task.documents is None:  # the others are asked about by their number
            order = range(sum(counts.values()))
        return [(each, builder.prompts(each)) for each in tasks.values()], order, task.stop

    def _both_splits(self) -> str:
        """A folder with GSM8K's splits under the names that documents.py looks for."""
        if not hasattr(self, "folder"):
            self.folder = tempfile.TemporaryDirectory(prefix="gsm8k-")
            for name, file in (("test.jsonl", "gsm8k_test.jsonl"), ("train.jsonl.gz", TRAIN)):
                os.symlink((self.data / file).resolve(), Path(self.folder.name) / name)
        return self.folder.name

    def _rows(self, file: str) -> list[dict]:
        return [json.loads(line) for line in (self.data / file).read_text().splitlines()]


def spread(files: Mapping[str, Mapping], folder: Path) -> None:
    """Write files of documents of which few are known: {file: {rows, known, absent}}.

    rows: how many there are. known: rows by number. absent: rows that stand for the others, in turn.
    """
    for name, of in files.items():
        absent = itertools.cycle(of["absent"])
        rows = [of["known"].get(str(number)) or next(absent) for number in range(of["rows"])]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (gzip.open if name.endswith(".gz") else open)(folder / name, "wt") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))


def compare(lines: list[dict], published: Published) -> tuple[Table, list[str], bool]:
    """(a table by paper and table; the first difference of each row in words; whether all sure lines are
    equal)."""
    counts: dict[tuple, Counter] = {}
    firsts: dict[tuple, str] = {}
    for line in lines:
        key = (line["paper"], line["table"])
        ours, stop = published.make(line)
        # A list of stop strings is unordered, and the published code knows no other end of an answer.
        equal = ours == line["text"] and set(stop) == set(line["until"])
        kind = "equal" if equal else "differ" if line["sure"] is True else "differ, not sure"
        counts.setdefault(key, Counter())[kind] += 1
        if not equal:
            firsts.setdefault(key, difference(line, ours, stop))
    table = Table(box=box.SIMPLE)
    kinds = ("equal", "differ", "differ, not sure")
    for column in ("paper", "table", "prompts", *kinds):
        table.add_column(column, justify="left" if column in ("paper", "table") else "right")
    for key, found in counts.items():
        table.add_row(*key, str(found.total()), *(str(found[kind]) for kind in kinds))
    return table, list(firsts.values()), not any(found["differ"] for found in counts.values())


def difference(line: Mapping, ours: str, stop: list[str]) -> str:
    """Where the prompt of a line and ours part."""
    what = f"{line['paper']}, table {line['table']}, {line['task']}, document {line['document']}"
    theirs = line["text"]
    if ours == theirs:
        return f"{what}: published stop strings {line['until']}, ours {stop}"
    pairs = zip(ours, theirs, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
    cut = slice(max(0, at - 20), at + 40)
    return f"{what}, from character {at}:\n  published {theirs[cut]!r}\n  ours      {ours[cut]!r}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m unmask.prompts", description="Make published prompts anew and compare them."
    )
    parser.add_argument("file", type=Path, help="prompts.jsonl: a published prompt a line")
    parser.add_argument(
        "data", type=Path, nargs="?", help="folder with the documents (default: see this module)"
    )
    given = parser.parse_args(arguments)
    with refusals(), tempfile.TemporaryDirectory() as folder:
        try:
            lines = [json.loads(line) for line in given.file.read_text().splitlines()]
        except (OSError, ValueError) as error:
            raise ValueError(f"{given.file}: cannot be read as lines of JSON ({error})") from error
        data, rows = given.data or ROOT.parent / "shared" / "data", given.file.with_name("rows.json")
        if given.data is None and rows.is_file():
            data = Path(folder)
            spread(json.loads(rows.read_text()), data)
        if not data.is_dir():
            raise ValueError(f"{data}: no such folder; give one with the documents of these prompts")
        table, differences, equal = compare(lines, Published(data))
    console = Console()
    console.print(table)
    for words in differences:
        console.print(words, markup=False, highlight=False)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
