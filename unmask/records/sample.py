"""What is written down about one generated document, and the rules it must obey to be written at all.

The counting rules are those of measurement: ids are counted, never re-tokenised text; the prompt never
counts; useful ids end before the first stop; every role's forwards and positions are shown.
"""

import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Literal, NotRequired, TypedDict

import numpy as np

from unmask.records.files import RecordError

SCHEMA = 3
"""Version of the files in a run folder; raised when a field changes its meaning."""


class Sample(TypedDict):
    """One generation. All fields are required but `lost`, and there are no others.

    A line of samples.jsonl is this and a `checksum`, which `Run.append` adds and reading checks and removes.
    """

    doc_id: int  # number of the document in the task; in a group, see `documents.TASK_STRIDE`
    repeat: int  # 0 for the first generation of the document, 1 for the second, ...
    task: str
    prompt_hash: str  # of the prompt ids
    prompt_length: int  # tokens of the prompt
    seed: int  # of this document's own noise
    ids: list[int]  # everything committed, in canvas order, gaps left out; prompt excluded
    commits: list[
        int
    ]  # per canvas position up to the last committed one: its step from 0, or -1 where left open
    text: str  # the answer as it is scored
    useful: int  # ids before the first end-of-text or stop string
    finish: Literal["stop", "length"]
    forwards: dict[str, int]  # role -> forwards; the first role's are the steps
    positions: dict[str, int]  # role -> query positions fed, the second cost; same roles, same order
    seconds: float | None  # wall clock, device synchronised; in a batch an equal share; None: not comparable
    max_new_tokens: int  # length of the canvas in tokens
    batch_size: int  # rows decoded at once, at most
    batch: int  # samples on disk when this batch began: documents of a batch share it and their clock
    exact: bool | None  # ids equal to the lossless baseline's; None where the decoder does not claim it
    commit: str | None  # of the code that made it, see `environment.commit`; older records hold a git commit
    machine: str  # that made it, see `environment.machine`
    session: str | None  # 8 hex digits of the session in which settings answered in turns; None: alone
    # of decoders that revise alone: every token that was taken back, as [canvas position, id, the step that
    # committed it, the step that masked or rewrote it]
    lost: NotRequired[list[list[int]]]


def _integer(value: object, least: int = 0) -> bool:
    return type(value) is int and value >= least


def _positive(value: object) -> bool:
    return _integer(value, least=1)


def _integers(value: object, least: int = 0) -> bool:
    return isinstance(value, list) and all(_integer(item, least) for item in value)


def _per_role(value: object) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(map(_string, value)) and all(map(_integer, value.values()))


def _string(value: object) -> bool:
    return isinstance(value, str)


def _commit(value: object) -> bool:
    return value is None or (
        _string(value) and re.fullmatch(r"[0-9a-f]{12}(\+([0-9a-f]{6})?)?", value) is not None
    )


def _hexadecimal(value: object) -> bool:
    return _string(value) and re.fullmatch(r"[0-9a-f]{8}", value) is not None


def _duration(value: object) -> bool:
    return value is None or (type(value) in (int, float) and isfinite(value) and value > 0)


# field -> (whether a value has its form, the form in words)
_FORM: dict[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(("doc_id", "repeat", "prompt_length", "useful", "batch"), (_integer, "an integer >= 0")),
    **dict.fromkeys(("max_new_tokens", "batch_size"), (_positive, "an integer >= 1")),
    **dict.fromkeys(("task", "prompt_hash", "text"), (_string, "a string")),
    **dict.fromkeys(("forwards", "positions"), (_per_role, "a non-empty dict of role to integer >= 0")),
    "ids": (_integers, "a list of integers >= 0"),
    "commits": (lambda v: _integers(v, least=-1), "a list of integers >= -1"),
    "seed": (lambda v: type(v) is int, "an integer"),
    "finish": (lambda v: v in ("stop", "length"), "'stop' or 'length'"),
    "seconds": (_duration, "a finite number of seconds > 0, or None"),
    "exact": (lambda v: v is None or isinstance(v, bool), "true, false or None"),
    "commit": (_commit, "12 hex digits of the code that made it, or an older record's git commit, or None"),
    "machine": (lambda v: _string(v) and v != "", "the name of a machine"),
    "session": (lambda v: v is None or _hexadecimal(v), "8 hex digits, or None"),
}
_OPTIONAL: dict[str, tuple[Callable[[object], bool], str]] = {
    "lost": (
        lambda v: isinstance(v, list) and all(_integers(entry) and len(entry) == 4 for entry in v),
        "a list of [position, id, step, step]",
    )
}
assert (_FORM | _OPTIONAL).keys() == Sample.__annotations__.keys()


def step_role(sample: Mapping) -> str:
    """The role whose forwards are the steps: the first one of `forwards`."""
    return next(iter(sample["forwards"]))


def committed(sample: Mapping) -> list[int]:
    """How many tokens each step committed, what stands after the end included."""
    steps = [step for step in sample["commits"] if step >= 0]
    return np.bincount(np.array(steps, int), minlength=sample["forwards"][step_role(sample)]).tolist()


def check_sample(sample: Mapping) -> None:
    """Raise RecordError, naming the document, unless the sample has the schema's form and adds up."""
    where = f"document {sample.get('doc_id')!r}, repeat {sample.get('repeat')!r}"
    if wrong := (sample.keys() - _OPTIONAL.keys()) ^ _FORM.keys():
        raise RecordError(f"{where}: missing or unknown fields {sorted(map(str, wrong))}")
    for name, (holds, form) in (_FORM | _OPTIONAL).items():
        if name in sample and not holds(sample[name]):
            raise RecordError(f"{where}: {name} must be {form}, got {str(sample[name])[:80]!r}")
    for complaint in (_lengths(sample), _commits(sample), _lost(sample), _finish(sample), _costs(sample)):
        if complaint:
            raise RecordError(f"{where}: {complaint}")


def _lengths(sample: Mapping) -> str | None:
    useful, max_new_tokens = sample["useful"], sample["max_new_tokens"]
    committed, canvas = len(sample["ids"]), len(sample["commits"])
    if not useful <= committed <= canvas <= max_new_tokens:
        return (
            f"useful {useful} <= ids {committed} <= commits {canvas} <= max_new_tokens {max_new_tokens} "
            "does not hold"
        )
    return None


def _commits(sample: Mapping) -> str | None:
    commits, ids = sample["commits"], sample["ids"]
    committed = sum(step >= 0 for step in commits)
    if committed != len(ids):
        return f"commits has {committed} committed positions but there are {len(ids)} ids"
    if commits and commits[-1] < 0:
        return "commits ends with an open position; it ends with the last committed one"
    role = step_role(sample)
    steps = sample["forwards"][role]
    if max(commits, default=-1) >= steps:
        return (
            f"step {max(commits)} committed a token, but the steps are the {steps} forwards of {role}, from 0"
        )
    return None


def _lost(sample: Mapping) -> str | None:
    """A token stands from its step to the one that takes it back; no two stand in one position at once."""
    steps, canvas = sample["forwards"][step_role(sample)], sample["max_new_tokens"]
    free = dict.fromkeys(range(canvas), 0)  # position -> the step from which it is free
    for position, _, written, taken in sample.get("lost", ()):
        if not (position < canvas and free[position] <= written <= taken < steps):
            return (
                f"lost says that position {position} held a token from step {written} to {taken} of {steps}"
            )
        free[position] = taken
    for position, step in enumerate(sample["commits"]):
        if 0 <= step < free.get(position, 0):
            return f"step {step} committed position {position}, which was taken back in step {free[position]}"
    return None


def _finish(sample: Mapping) -> str | None:
    useful, committed, finish = sample["useful"], len(sample["ids"]), sample["finish"]
    if (finish == "stop") != (useful < committed):
        return (
            f"finish is {finish!r} with {useful} useful of {committed} ids; the stop itself is committed but "
            "not useful, so 'stop' means fewer useful ids, 'length' all"
        )
    end = useful + (finish == "stop")
    if -1 in sample["commits"][:end]:
        return f"commits leaves one of the first {end} open; an answer ends once all left of its end is there"
    return None


def _costs(sample: Mapping) -> str | None:
    forwards, positions = sample["forwards"], sample["positions"]
    if list(forwards) != list(positions) or any(positions[role] < forwards[role] for role in forwards):
        return (
            f"forwards {forwards} and positions {positions} must have the same roles in the same order, and "
            "every forward feeds at least one position"
        )
    return None
