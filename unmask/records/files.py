"""Files that survive a kill: JSON lines with a repairable tail, atomic replacement, one writer at a time."""

import fcntl
import json
import os
from pathlib import Path
from typing import BinaryIO


class RecordError(ValueError):
    """Something about a record is wrong; the message names the file (and line) and says what to do."""


def read_jsonl(path: Path) -> tuple[list[dict], int]:
    """The objects in a JSON-lines file, and how many bytes they fill from the start.

    A damaged last line (no newline, no JSON, or the NULs a power cut leaves) is what an interrupted write
    looks like: it is left out, and the byte count is then smaller than the file. Damage anywhere else has
    another cause and raises RecordError. A missing file holds nothing. The file itself is not touched.
    """
    rows, size, damaged = [], 0, None
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True) if path.exists() else [], 1):
        if damaged:
            raise RecordError(
                f"{path}:{damaged}: this line is not a JSON object and is not the last one, so no "
                "interrupted write explains it. Delete the line; the document it held is then made again"
            )
        try:
            row = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
            size += len(line)
        else:
            damaged = number
    return rows, size


def read_json(path: Path) -> dict:
    """The object in a JSON file; RecordError if it cannot be read."""
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        return value
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path}: cannot be read ({error}). The samples beside it are untouched: put the file back from "
            "a copy, or move the folder away, or choose another `output`"
        ) from error


def write_atomic(path: Path, text: str) -> None:
    """Replace a file whole: readers and crashes see the old content or the new, never a mixture."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def append_line(file: BinaryIO, line: bytes) -> None:
    """Append a line to an unbuffered file and sync it; a failed write (full disk, Ctrl-C) leaves nothing."""
    size = os.fstat(file.fileno()).st_size
    try:
        if file.write(line) != len(line):
            raise OSError(f"{file.name}: short write, is the disk full?")
        os.fsync(file.fileno())
    except BaseException:
        file.truncate(size)
        raise


def lock(path: Path) -> BinaryIO:
    """Open a file for unbuffered appending as its only writer, until it is closed or the process dies.

    Raises BlockingIOError when somebody else holds it.
    """
    file = path.open("ab", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file
