"""What is written down about one generated document, and the rules it must obey to be written at all.

The counting rules are those of measurement: ids are counted, never re-tokenised text; the prompt never
counts; useful ids end before the first stop; every role's forwards and positions are shown.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Literal, TypedDict

from unmask.records.files import RecordError

SCHEMA = 1
"""Version of the files in a run folder; raised when a field changes its meaning."""


class Sample(TypedDict):
    """One generation, as a line of samples.jsonl. All fields are required and there are no others."""

    doc_id: int  # index of the document in the task
    repeat: int  # 0 for the first generation of the document, 1 for the second, ...
    task: str
    prompt_hash: str  # of the prompt ids
    seed: int  # of this document's own noise
    ids: list[int]  # everything committed, in order; prompt excluded
    text: str  # the answer as it is scored
    useful: int  # ids before the first end-of-text or stop string
    finish: Literal["stop", "length"]
    steps: list[int]  # tokens committed per step
    forwards: dict[str, int]  # role -> forwards: denoiser, auxiliary, drafter, autoregressive
    positions: dict[str, int]  # role -> query positions fed, the second cost
    seconds: float  # wall seconds, device synchronised; in a batch, the batch's seconds over its documents
    budget: int  # length of the canvas in tokens
    batch_size: int  # documents decoded together


def _integer(value: object, least: int = 0) -> bool:
    return type(value) is int and value >= least


def _integers(value: object) -> bool:
    return isinstance(value, list) and all(map(_integer, value))


def _per_role(value: object) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(map(_string, value)) and all(map(_integer, value.values()))


def _string(value: object) -> bool:
    return isinstance(value, str)


def _duration(value: object) -> bool:
    return type(value) in (int, float) and isfinite(value) and value > 0


_FORM = {
    **dict.fromkeys(("doc_id", "repeat", "useful"), (_integer, "an integer >= 0")),
    **dict.fromkeys(("budget", "batch_size"), (lambda v: _integer(v, least=1), "an integer >= 1")),
    **dict.fromkeys(("task", "prompt_hash", "text"), (_string, "a string")),
    **dict.fromkeys(("ids", "steps"), (_integers, "a list of integers >= 0")),
    **dict.fromkeys(("forwards", "positions"), (_per_role, "a non-empty dict of role to integer >= 0")),
    "seed": (lambda v: type(v) is int, "an integer"),
    "finish": (lambda v: v in ("stop", "length"), "'stop' or 'length'"),
    "seconds": (_duration, "a finite number of seconds > 0"),
}
assert _FORM.keys() == Sample.__annotations__.keys()


def check_sample(sample: Mapping) -> None:
    """Raise RecordError, naming the document, unless the sample has the schema's form and adds up."""
    where = f"document {sample.get('doc_id')!r}, repeat {sample.get('repeat')!r}"
    if wrong := sample.keys() ^ _FORM.keys():
        raise RecordError(f"{where}: missing or unknown fields {sorted(map(str, wrong))}")
    for name, (holds, form) in _FORM.items():
        if not holds(sample[name]):
            raise RecordError(f"{where}: {name} must be {form}, got {str(sample[name])[:80]!r}")

    committed, useful, budget = len(sample["ids"]), sample["useful"], sample["budget"]
    if sum(sample["steps"]) != committed:
        raise RecordError(
            f"{where}: the steps commit {sum(sample['steps'])} tokens but there are {committed} ids"
        )
    if not useful <= committed <= budget:
        raise RecordError(f"{where}: useful {useful} <= ids {committed} <= budget {budget} does not hold")
    if (sample["finish"] == "stop") != (useful < committed):
        raise RecordError(
            f"{where}: finish is {sample['finish']!r} with {useful} useful of {committed} ids; the stop "
            "itself is committed but not useful, so 'stop' means fewer useful ids, 'length' all"
        )
    forwards, positions = sample["forwards"], sample["positions"]
    if forwards.keys() != positions.keys() or any(positions[role] < forwards[role] for role in forwards):
        raise RecordError(
            f"{where}: every forward feeds at least one position, which forwards {forwards} and "
            f"positions {positions} contradict"
        )


def check_score(score: Mapping) -> None:
    """Raise RecordError unless a score has `doc_id`, `repeat`, `correct` (0..1, or None where the answer
    cannot be scored) and `extraction_failed` (bool). It may carry more (the extracted answer, the target,
    other metrics)."""
    where = f"score of document {score.get('doc_id')!r}"
    if missing := {"doc_id", "repeat", "correct", "extraction_failed"} - score.keys():
        raise RecordError(f"{where}: missing fields {sorted(missing)}")
    if shadowed := (score.keys() & _FORM.keys()) - {"doc_id", "repeat"}:
        raise RecordError(f"{where}: {sorted(shadowed)} belong to the sample, choose other names")
    correct = score["correct"]
    if correct is not None and not (isinstance(correct, (int, float)) and 0 <= correct <= 1):
        raise RecordError(f"{where}: correct must be a number from 0 to 1, or None, got {correct!r}")
    if not isinstance(score["extraction_failed"], bool):
        raise RecordError(f"{where}: extraction_failed must be a bool, got {score['extraction_failed']!r}")
