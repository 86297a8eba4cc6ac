"""How answers came about, step by step: what a sample does not hold, for a few documents of a run.

trace.jsonl lies beside samples.jsonl and is not needed: an answer's commits are in its sample.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict

from unmask.records.files import RecordError, read_jsonl, sealed, unsealed, write_atomic

TRACES = "trace.jsonl"
AGAIN = "Delete the file: the command that made the run and trace=true makes it again"


class Trace(TypedDict):
    """One answer. A line of trace.jsonl is this and a `checksum`."""

    doc_id: int
    repeat: int
    question: str | None  # as the task's document has it
    drafted: list[list[int]]  # per step, the ids that were judged; empty where nothing is drafted
    accepted: list[int]  # per step, how many of these, from the first on
    blocks: list[str]  # per step, the states of the blocks after it (`Decoder.block_states`)
    forwards: dict[str, list[int]]  # role -> forwards up to each step, that step included


def write_traces(folder: Path, traces: Iterable[Trace], of: str) -> None:
    """Replace the traces of a run. of: see `reading.seal_of`."""
    lines = (json.dumps(sealed(row, of), allow_nan=False) + "\n" for row in traces)
    write_atomic(folder / TRACES, "".join(lines))


def read_traces(folder: Path, of: str) -> dict[tuple[int, int], Trace]:
    """The traces of a run by (doc_id, repeat), none without a file; RecordError where it is damaged."""
    path = folder / TRACES
    rows, _ = read_jsonl(path, AGAIN)
    rows = [unsealed(row, f"{path}:{number}", AGAIN, of) for number, row in enumerate(rows, 1)]
    rows = [check_trace(row, path) for row in rows]
    return {(row["doc_id"], row["repeat"]): row for row in rows}


def check_trace(row: dict, where: object) -> Trace:
    """The row; RecordError, beginning with `where`, unless it has the fields and the form of a trace."""
    if not isinstance(row, dict) or row.keys() != Trace.__annotations__.keys():
        raise RecordError(f"{where}: has other fields than {', '.join(Trace.__annotations__)}. {AGAIN}")
    numbers = all(type(row[name]) is int for name in ("doc_id", "repeat"))
    lists = all(isinstance(row[name], list) for name in ("drafted", "blocks"))
    lists = lists and isinstance(row["forwards"], dict)
    if not (
        numbers
        and lists
        and all(map(_integers, [row["accepted"], *row["drafted"], *row["forwards"].values()]))
        and all(isinstance(states, str) for states in row["blocks"])
        and len({len(row[name]) for name in ("drafted", "accepted", "blocks")}) == 1
        and all(len(counts) == len(row["blocks"]) for counts in row["forwards"].values())
        and all(map(_within, row["accepted"], row["drafted"]))
    ):
        raise RecordError(f"{where}: is no trace. {AGAIN}")
    if not isinstance(row["question"], str | None):
        raise RecordError(f"{where}: question must be a string or null. {AGAIN}")
    return row


def _integers(value: object) -> bool:
    return isinstance(value, list) and all(type(each) is int for each in value)


def _within(accepted: int, drafted: list[int]) -> bool:
    return 0 <= accepted <= len(drafted)


def agrees(trace: Trace, sample: Mapping) -> bool:
    """Whether a trace is of this answer, as far as the counts tell."""
    last = {role: counts[-1] for role, counts in trace["forwards"].items() if counts}
    return last == sample["forwards"]
