"""Where training examples come from: generated problems, drills, or the answers of a run.

A recipe's `mixture` names its sources: `gsm_symbolic`, `chain_sum`, a task of parallelbench.py (problems),
`drill`; `run:FOLDER`, the answers that a model gave to the training split, recorded like any other run;
`correct:FOLDER`, the right ones of them; `all:FOLDER`, also those that the limit cut off; `hub:NAME`,
questions and answers of a data set.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import load_dataset
from transformers import PreTrainedTokenizerBase

from unmask.evaluation.prompts import prompt_ids, prompt_text, text_ids
from unmask.paths import ROOT
from unmask.records import Run
from unmask.records.identity import prompt_hash
from unmask.tasks import parallelbench, problems
from unmask.training.refusal import reason

DRILL_LINES = (4, 11)  # drills are as long as word problems, so that batches mix both
PROBLEMS = 1000  # problems that are generated at once
PARTS = 64  # of PROBLEMS problems, in a chunk: far more than one can use
RUN = "run:"
CORRECT = "correct:"
ALL = "all:"
OF_RUNS = (RUN, CORRECT, ALL)
HUB = "hub:"
# How published data sets call their columns (dParallel's, D2F's, and what many others do).
QUESTIONS = ("question", "prompt")
ANSWERS = ("llm_response", "qwen7b_answer", "answer", "response")


@dataclass(frozen=True)
class Example:
    """Ids to learn from: exchanges of (prompt, answer). Only the answers are predicted.

    ends: the last answer ends the text (its last id is the end token), so that only end padding follows.
    """

    exchanges: list[tuple[list[int], list[int]]]
    ends: bool = True

    @property
    def ids(self) -> list[int]:
        return [i for prompt, answer in self.exchanges for i in (*prompt, *answer)]

    @property
    def is_answer(self) -> list[bool]:
        """Per id: the model predicts it."""
        flags: list[bool] = []
        for prompt, answer in self.exchanges:
            flags += [False] * len(prompt) + [True] * len(answer)
        return flags


class Source:
    """Examples without end. The same chunk and the same state of the generator give the same ones."""

    def examples(self, chunk: int, rng: random.Random) -> Iterator[Example]:
        raise NotImplementedError

    @property
    def fingerprint(self) -> str | None:
        """A hash of the data, where it could change without the recipe; training does not resume on another
        one."""
        return None


@dataclass
class Problems(Source):
    """Generated problems of an embedded task with their worked solutions. `seed` gives other problems."""

    task: str
    tokenizer: PreTrainedTokenizerBase
    seed: int = 0

    def examples(self, chunk: int, rng: random.Random) -> Iterator[Example]:
        first = (self.seed * 100_003 + chunk) * PARTS
        for part in range(PARTS):
            found = problems.training_stream(self.task, first + part, PROBLEMS)
            for problem in found:
                answer = text_ids(self.tokenizer, problem.solution + self.tokenizer.eos_token)
                yield Example([(prompt_ids(self.tokenizer, problem.question), answer)])


@dataclass
class Parallel(Problems):
    """Problems of parallelbench.py. Their answers fill the task's own canvas with end tokens, all of which
    are predicted, whatever the recipe's canvas is."""

    def examples(self, chunk: int, rng: random.Random) -> Iterator[Example]:
        canvas, end = parallelbench.canvas(self.task), self.tokenizer.eos_token_id
        for example in super().examples(chunk, rng):
            ((prompt, answer),) = example.exchanges
            yield Example([(prompt, answer + [end] * (canvas - len(answer)))])

    @property
    def fingerprint(self) -> str:
        return problems.fingerprint(self.task)


@dataclass
class Drills(Source):
    """Lines of arithmetic, whose results are the answers."""

    tokenizer: PreTrainedTokenizerBase

    def examples(self, chunk: int, rng: random.Random) -> Iterator[Example]:
        while True:
            lines = problems.drill(rng, rng.randint(*DRILL_LINES))
            exchanges = [
                (text_ids(self.tokenizer, expression), text_ids(self.tokenizer, result + "\n"))
                for expression, result in lines
            ]
            yield Example(exchanges, ends=False)


class Pairs(Source):
    """Prompts with one answer each, as ids, in `pairs`. Every pass in another random order."""

    pairs: list[tuple[list[int], list[int]]]
    end: int  # the id that ends an answer, unless it is cut off

    def examples(self, chunk: int, rng: random.Random) -> Iterator[Example]:
        while True:
            for pair in rng.sample(self.pairs, len(self.pairs)):
                yield Example([pair], ends=pair[1][-1] == self.end)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.pairs).encode()).hexdigest()[:12]


class Answers(Pairs):
    """The answers of a run: of each, its useful ids and the end token. Every pass in another random order.

    An answer that filled its canvas without an end is left out, since where it would have ended is not known;
    `all:` takes it as it is. `correct:` takes the right answers alone, by the metric of the run. The prompts
    are built again from the task and the split that the run names, and must become the ids that the run's
    model was given.
    """

    def __init__(self, folder: str, tokenizer: PreTrainedTokenizerBase, kind: str = RUN):
        """kind: one of OF_RUNS. ValueError (RecordError) where there is no run, or it cannot be trained
        on."""
        self.name = f"mixture: {kind}{folder}"
        correct, cut = kind == CORRECT, kind == ALL
        run = Run.read(run_folder(kind, folder))
        task = run.config.get("task", {})
        self._check(task)
        chat_options = _chat_options(run.config)
        answers = run.scored(run.info["metric"]) if correct else run.samples()
        samples = [
            s for s in answers if (cut or s["finish"] == "stop") and (not correct or s["correct"] == 1)
        ]
        if not samples:
            fault = "ends and is right" if correct else "ends"
            raise ValueError(
                f"{self.name}: none of its {len(run.done)} answers {fault}, so none can be learned from"
            )
        count = 1 + max(sample["doc_id"] for sample in samples)
        documents = list(itertools.islice(problems.training_split(task["name"]), count))
        if len(documents) < count:
            raise ValueError(
                f"{self.name}: document {count - 1} is not among the {len(documents)} of its split"
            )
        self.end = tokenizer.eos_token_id
        self.pairs = []
        for sample in samples:
            question = documents[sample["doc_id"]].question
            prompt = prompt_ids(tokenizer, question, task.get("system_prompt"), chat_options)
            if prompt_hash(prompt) != sample["prompt_hash"]:
                raise ValueError(
                    f"{self.name}: the prompt of document {sample['doc_id']} is not the one that was "
                    "answered: the run's model has another tokenizer or chat template, or the task has "
                    "changed"
                )
            end = [self.end] * (sample["finish"] == "stop")
            self.pairs.append((prompt, sample["ids"][: sample["useful"]] + end))

    def _check(self, task: dict) -> None:
        name, split = task.get("name"), task.get("split")
        if name not in problems.OPTIONS:
            raise ValueError(
                f"{self.name}: is of task {name}, and training reads the prompts of embedded tasks alone "
                f"({', '.join(problems.OPTIONS)})"
            )
        if split != "train":
            raise ValueError(
                f"{self.name}: its answers are to the {split} split, which is for measuring: train on "
                "answers to the training split (python eval.py task.split=train ...)"
            )
        if task.get("num_fewshot"):
            raise ValueError(
                f"{self.name}: has task.num_fewshot={task['num_fewshot']}; train on a run "
                "without worked examples"
            )


class DataSet(Pairs):
    """Questions with one answer each: the split "train" of a data set on the Hub, or of one in a folder.

    A question that bears the chat template already (as in LLaDA's set of dParallel) is taken as it is.
    Answers of more than `longest` tokens are left out.
    """

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase, longest: int | None = None):
        """ValueError where there is no such data set, or its columns are unknown."""
        self.name = f"mixture: {HUB}{name}"
        try:
            rows = load_dataset(name, split="train")
        except Exception as error:  # no network, no such name, no such split: each its own type
            raise ValueError(f"{self.name}: cannot be loaded ({reason(error)})") from error
        question, answer = (
            self._column(rows.column_names, known, what)
            for known, what in ((QUESTIONS, "questions"), (ANSWERS, "answers"))
        )
        begins = prompt_text(tokenizer, "?").partition("?")[0]
        self.pairs, self.end = [], tokenizer.eos_token_id
        for number, row in enumerate(rows):
            for column in (question, answer):
                if not isinstance(row[column], str):
                    raise ValueError(f"{self.name}: row {number}: column {column} holds no text")
            templated = row[question].startswith(begins)
            prompt = text_ids(tokenizer, row[question]) if templated else prompt_ids(tokenizer, row[question])
            ids = [*text_ids(tokenizer, row[answer]), tokenizer.eos_token_id]
            if longest is None or len(ids) <= longest:
                self.pairs.append((prompt, ids))
        if not self.pairs:
            raise ValueError(f"{self.name}: no answer of at most {longest} tokens; raise `canvas`")

    def _column(self, columns: Sequence[str], known: Sequence[str], what: str) -> str:
        found = next((name for name in known if name in columns), None)
        if found is None:
            raise ValueError(
                f"{self.name}: no column of {what} among {', '.join(columns)}; rename one to {known[0]}"
            )
        return found


def run_folder(kind: str, folder: str) -> Path:
    """A run's folder, here or in the project; ValueError where there is none. kind: one of OF_RUNS."""
    for path in (Path(folder), ROOT / folder):
        if os.path.isdir(path):  # of a name that cannot be: False
            return path
    raise ValueError(f"mixture: {kind}{folder[:100]}: no such folder; give a run's folder, with its run.json")


def check_runs(names: Iterable[str]) -> None:
    """ValueError unless the folders of all sources that are runs exist."""
    for name in names:
        kind, _, folder = name.partition(":")
        if f"{kind}:" in OF_RUNS:
            run_folder(f"{kind}:", folder)


def check_name(name: str) -> None:
    """ValueError for a source that there is not."""
    named = any(name.startswith(prefix) and name != prefix for prefix in (*OF_RUNS, HUB))
    known = (*problems.WORKED, "drill", *parallelbench.TASKS)
    if name not in known and not named:
        raise ValueError(
            f"mixture: unknown source {name!r}; there are {', '.join(known)}, "
            f"{', '.join(f'{prefix}FOLDER' for prefix in OF_RUNS)} and {HUB}NAME"
        )


def source(
    name: str, tokenizer: PreTrainedTokenizerBase, seed: int = 0, longest: int | None = None
) -> Source:
    """The source that a mixture names; ValueError where there is none. longest: tokens of a data set's
    answers."""
    check_name(name)
    if name == "drill":
        return Drills(tokenizer)
    if name.startswith(HUB):
        return DataSet(name.removeprefix(HUB), tokenizer, longest)
    for prefix in OF_RUNS:
        if name.startswith(prefix):
            return Answers(name.removeprefix(prefix), tokenizer, prefix)
    return (Parallel if name in parallelbench.TASKS else Problems)(name, tokenizer, seed)


def _chat_options(config: Mapping) -> dict:
    """What a run gave the chat template of its first role's model besides the messages."""
    main = config.get("models", {}).get(next(iter(config.get("roles", ())), None), {})
    return dict(main.get("chat_options", {}))
