"""Rows by key in a file of JSON lines: on disk when they are added, there when the file is opened again."""

import json
import os
from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from unmask.records.files import RecordError, append_line, lock, read_jsonl, sealed, unsealed

ADVICE = "Delete the line; what it held is then made again"


class Kept:
    """The rows of a file; nothing is written before the first `add`.

    path: the file; None keeps nothing. key: of a row. beside: a pattern of files in its folder that are read
    too, as other processes keep theirs. of: with what rows are sealed, see `files.sealed`. check: whether a
    row has the form of those that are kept here.
    RecordError for damaged lines; at the first `add`, where another process is writing.
    """

    def __init__(
        self,
        path: Path | None,
        key: Callable[[Mapping], Hashable],
        beside: str | None = None,
        of: str = "",
        check: Callable[[Mapping], bool] = lambda row: True,
    ):
        self.path, self.key, self.beside, self.of, self.check = path, key, beside, of, check
        self._file: BinaryIO | None = None

    @cached_property
    def rows(self) -> dict[Hashable, dict]:
        return {} if self.path is None else self._read()[0]

    def add(self, row: Mapping) -> None:
        """Append a row; it is on disk when this returns."""
        if self.path is None:
            return
        if self._file is None:
            self._claim()
        append_line(self._file, (json.dumps(sealed(row, self.of), allow_nan=False) + "\n").encode())
        self.rows[self.key(row)] = dict(row)

    def close(self) -> None:
        """Let go of the file; a later `add` takes it again."""
        if self._file:
            self._file.close()
            self._file = None

    def _read(self) -> tuple[dict[Hashable, dict], int]:
        """(rows by key, bytes that those of the file fill): an interrupted last line is left out."""
        others = sorted(self.path.parent.glob(self.beside)) if self.beside else []
        found, size = {}, 0
        for path in [*(path for path in others if path != self.path), self.path]:
            lines, size = read_jsonl(path, ADVICE)
            rows = [unsealed(row, f"{path}:{number}", ADVICE, self.of) for number, row in enumerate(lines, 1)]
            for number, row in enumerate(rows, 1):
                try:
                    right = self.check(row)
                    found[self.key(row)] = row
                except (KeyError, TypeError, AttributeError):
                    right = False
                if not right:
                    raise RecordError(f"{path}:{number}: is a row of another form. {ADVICE}")
        return found, size

    def _claim(self) -> None:
        """Become the file's one writer, and read it again, now that it cannot change."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = lock(self.path)
        except BlockingIOError:
            raise RecordError(
                f"{self.path}: another process is writing it. Wait for it, or choose another `results`"
            ) from None
        try:
            self.rows, size = self._read()
            if os.fstat(self._file.fileno()).st_size > size:  # an interrupted last line
                self._file.truncate(size)
        except BaseException:
            self.close()
            raise
