"""Files that survive a kill: JSON lines with a repairable tail, checksums, atomic replacement, one writer."""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from unmask.records.identity import canonical


class RecordError(ValueError):
    """Something about a record is wrong; the message names the file (and line) and says what to do.

    Lone surrogates, as damage leaves them, are escaped: the message can be printed.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode())


def checksum(row: Mapping, of: str = "") -> str:
    """8 hex digits of the SHA-256 of `of` and a row's canonical JSON."""
    return hashlib.sha256((of + canonical(row)).encode()).hexdigest()[:8]


def sealed(row: Mapping, of: str = "") -> dict:
    """A row with its `checksum`, as it is written. of: the hash of the config whose run it is of, which makes
    a row that strays into another run one that does not match."""
    return {**row, "checksum": checksum(row, of)}


def unsealed(row: Mapping, where: object, advice: str, of: str = "") -> dict:
    """A row as it was before `sealed`; RecordError, beginning with `where`, where the checksum differs."""
    rest = {key: value for key, value in row.items() if key != "checksum"}
    try:
        intact = row.get("checksum") == checksum(rest, of)
    except (ValueError, RecursionError):  # NaN, or very deep: nothing that this program writes
        intact = False
    if not intact:
        other = ", or is another run's" if of else ""
        raise RecordError(
            f"{where}: does not match its checksum: it was changed after it was written{other}. {advice}"
        )
    return rest


def read_jsonl(path: Path, advice: str = "Delete the line") -> tuple[list[dict], int]:
    """The objects in a JSON-lines file, and how many bytes they fill from the start.

    A last line without a newline, or with the NULs that a power cut leaves, is what an interrupted write
    looks like: it is left out, and the byte count is then smaller than the file. Any other line that is not a
    JSON object raises RecordError with `advice`. A missing file holds nothing. The file is not touched.
    """
    *lines, rest = _bytes(path).split(b"\n") if path.exists() else [b""]
    rows, size = [], 0
    for number, line in enumerate(lines, 1):
        row = _object(line)
        if row is None:
            if number == len(lines) and not rest and b"\0" in line:
                break
            raise RecordError(
                f"{path}:{number}: this line is not a JSON object, and no interrupted write explains it. "
                f"{advice}"
            )
        rows.append(row)
        size += len(line) + 1
    return rows, size


def read_json(path: Path) -> dict:
    """The object in a JSON file; RecordError if it cannot be read."""
    value = _object(_bytes(path))
    if value is None:
        raise RecordError(f"{path}: is not a JSON object. {PUT_BACK}")
    return value


PUT_BACK = (
    "The samples beside it are untouched: put the file back from a copy, or move the folder away, or choose "
    "another `run_folder`"
)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be read ({error.strerror}). Make it a readable file, or move the folder away"
        ) from error


def _object(text: bytes) -> dict | None:
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_atomic(path: Path, text: str) -> None:
    """Replace a file whole: readers and crashes see the old content or the new, never a mixture."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _named(error, path) from error
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
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
    except BaseException as error:
        with suppress(OSError):  # where it fails too, the torn line is cut when the file is next opened
            file.truncate(size)
        if isinstance(error, OSError):
            raise _named(error, file.name) from error
        raise


def _named(error: OSError, path: object) -> OSError:
    """The same error with the file's name: write and fsync give none."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def in_place(file: BinaryIO, size: int) -> bool:
    """Whether an open file is still the one at its path, and has this size."""
    ours = os.fstat(file.fileno())
    try:
        there = os.stat(file.name)
    except OSError:
        return False
    return os.path.samestat(ours, there) and ours.st_size == size


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
