"""One run's folder: append a document, die at any moment, open it again, finish exactly what is missing.

    with Run.open(folder, config, environment() | {"device": "cpu"}) as run:
        for doc in documents:
            if (doc.id, 0) not in run.done:
                run.append(generate(doc))           # on disk when this returns
        run.write_scores(score(run.samples()))      # as often as the scorer changes
        run.update(status="finished")

The key of a sample is (config hash, doc_id, repeat): the hash is checked when a folder is opened, the rest
when a sample is appended.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import BinaryIO

from unmask.records.environment import now
from unmask.records.files import RecordError, append_line, lock, read_json, read_jsonl, write_atomic
from unmask.records.recipe import canonical, config_hash, differences
from unmask.records.sample import SCHEMA, Sample, check_sample, check_score

log = logging.getLogger(__name__)

SAMPLES, SCORES, RUN = "samples.jsonl", "scores.jsonl", "run.json"
_OWN = ("schema", "config_hash", "config", "created", "resumed", "pid")

Key = tuple[int, int]


def find_runs(root: Path) -> list["Run"]:
    """Every run in a folder, in order of name, opened with `Run.read`; not those of folders in it: they are
    other collections."""
    return [Run.read(path.parent) for path in sorted(Path(root).glob(f"*/{RUN}"))]


class Run:
    """A run folder, made by `Run.open` (to write: one process at a time) or `Run.read` (to look).

    Attributes: `folder`; `config`; `info`, the content of run.json; `notes`, what was repaired on opening.
    """

    folder: Path
    config: dict
    info: dict
    notes: list[str]

    def __init__(self, folder: Path, config: Mapping, info: Mapping):
        self.folder, self.config, self.info = Path(folder), dict(config), dict(info)
        self.notes = []
        self._meta = self.info
        self._samples: dict[Key, Sample] = {}
        self._file: BinaryIO | None = None  # samples.jsonl, locked; None until the first write
        self._writable = False
        self._resuming = False  # samples of an earlier process are here, and this one has added none

    @classmethod
    def open(cls, folder: Path, config: Mapping, meta: Mapping) -> "Run":
        """Start a run, or resume the one in `folder`.

        Nothing is written, repaired or locked before the first write; `claim()` is one. `meta` (see
        `environment`) goes into run.json; when samples are added to an older run, what differs from the
        first time is added under `resumed` and logged.

        RecordError if the folder holds another config's run or something that is no run, or if its files are
        damaged beyond the last line of samples.jsonl; at the first write, if another process is writing.
        """
        run = cls(folder, json.loads(canonical(config)), json.loads(json.dumps(meta, allow_nan=False)))
        run._writable = True
        if stored := run._stored():
            run.info = stored
            run._samples, _ = _read_samples(run.folder / SAMPLES)
        return run

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """A run as it is on disk now, also while it is being written; repairs nothing, writes nothing."""
        info = _read_info(Path(folder) / RUN)
        run = cls(folder, info["config"], info)
        run._samples, _ = _read_samples(run.folder / SAMPLES)
        return run

    @property
    def done(self) -> Set[Key]:
        """Keys (doc_id, repeat) of the samples on disk, a live view."""
        return self._samples.keys()

    def samples(self) -> list[Sample]:
        """Every sample, in order of document and repeat."""
        return [dict(self._samples[key]) for key in sorted(self._samples)]

    def claim(self) -> None:
        """Become the folder's one writer now, as before long work: repairs a torn last line, and says in
        run.json that the run goes on."""
        self._begin()
        if not self._resuming:
            return
        self._resuming = False
        self._write_info(self._resumed(self.info))

    def append(self, sample: Sample) -> None:
        """Check a sample and add it; it is on disk when this returns. RecordError if it breaks an integrity
        rule or its document is already there."""
        check_sample(sample)
        self.claim()
        key = _key(sample)
        if key in self._samples:
            raise RecordError(f"{self.folder / SAMPLES}: document {key} is already there; skip `run.done`")
        line = json.dumps(sample, allow_nan=False)
        append_line(self._file, line.encode() + b"\n")
        self._samples[key] = json.loads(line)

    def write_scores(self, scores: Iterable[Mapping]) -> None:
        """Replace the scores of these documents (see `check_score` for the fields). Documents not named
        here, as when a smaller `limit` is scored again, keep the score they have."""
        fresh = _by_key(scores, check_score, "the new scores")
        if strange := sorted(fresh.keys() - self.done):
            raise RecordError(f"{self.folder / SCORES}: no samples for these scores: {_some(strange)}")
        merged = {key: row for key, row in self._scores().items() if key in self._samples} | fresh
        if merged == self._scores():
            return
        self._begin()
        text = "".join(json.dumps(merged[key], allow_nan=False) + "\n" for key in sorted(merged))
        write_atomic(self.folder / SCORES, text)

    def scored(self, keys: Set[Key] | None = None) -> list[dict]:
        """Samples (of these keys; default: all) joined with their scores, in order; RecordError if one has
        none."""
        scores = self._scores()
        keys = self.done if keys is None else keys
        if missing := sorted(keys - scores.keys()):
            raise RecordError(
                f"{self.folder / SCORES}: {len(missing)} of {len(self._samples)} samples have no score: "
                f"{_some(missing)}. Score them with the command that made the run"
            )
        return [sample | scores[_key(sample)] for sample in self.samples() if _key(sample) in keys]

    def update(self, **meta: object) -> None:
        """Set keys of run.json (`status="finished"`, ...); the time goes into `updated`."""
        if own := meta.keys() & set(_OWN):
            raise RecordError(f"{self.folder / RUN}: {sorted(own)} are not the caller's to change")
        if (self.folder / RUN).exists() and self.info == self.info | json.loads(
            json.dumps(meta, allow_nan=False)
        ):
            return
        self._begin()
        self._write_info(self.info | meta)

    def close(self) -> None:
        """Let go of the folder; a later write takes it again."""
        if self._file:
            self._file.close()
            self._file = None

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        """Become the folder's one writer (first write, or resume) and read what is there."""
        if not self._writable:
            raise RecordError(f"{self.folder}: opened by Run.read; use Run.open to write")
        if self._file:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._file = lock(self.folder / SAMPLES)
        except BlockingIOError:
            info = read_json(self.folder / RUN) if (self.folder / RUN).exists() else {}
            raise RecordError(
                f"{self.folder / SAMPLES}: another process (pid {info.get('pid')}) is writing this run. "
                "Wait for it, stop it, or choose another `output`"
            ) from None
        try:
            stored = self._stored()  # again, now that it cannot change
            self._samples, size = _read_samples(self.folder / SAMPLES)
            self._repair(size)
            if stored:
                self.info, self._resuming = stored, True
            else:
                self._write_info(self._new())
        except BaseException:
            self.close()
            raise

    def _repair(self, size: int) -> None:
        torn = os.fstat(self._file.fileno()).st_size - size
        if torn:
            self._file.truncate(size)
            os.fsync(self._file.fileno())
            self.notes.append(f"{self.folder / SAMPLES}: cut {torn} bytes of an interrupted last line")
            log.warning(self.notes[-1])

    def _new(self) -> dict:
        own = {"schema": SCHEMA, "config_hash": config_hash(self.config), "status": "running"}
        return own | self._meta | own | {"config": self.config, "created": now(), "resumed": []}

    def _resumed(self, stored: dict) -> dict:
        changed = differences({key: stored[key] for key in self._meta if key in stored}, self._meta)
        changed.pop("time", None)
        if changed:
            listed = ", ".join(
                f"{key}: {canonical(old)} -> {canonical(new)}" for key, (old, new) in changed.items()
            )
            log.warning(f"{self.folder}: resumed in other circumstances, so timings may not join ({listed})")
        entry = {"time": now(), "changed": {key: new for key, (_, new) in changed.items()}}
        return stored | {"status": "running", "resumed": [*stored.get("resumed", []), entry]}

    def _write_info(self, info: dict) -> None:
        info = info | {"pid": os.getpid(), "updated": now()}
        write_atomic(self.folder / RUN, json.dumps(info, indent=2, allow_nan=False) + "\n")
        self.info = info

    def _stored(self) -> dict | None:
        """The run.json of this very run, None where nothing is written yet; RecordError for anything else."""
        if not self.folder.exists():
            return None
        if not self.folder.is_dir():
            raise RecordError(f"{self.folder}: is not a folder; choose another `output`")
        if not (self.folder / RUN).exists():
            # killed before run.json: an empty samples.jsonl and hidden temporary files are ours
            strange = [
                path.name
                for path in self.folder.iterdir()
                if not path.name.startswith(".") and not (path.name == SAMPLES and path.stat().st_size == 0)
            ]
            if strange:
                raise RecordError(
                    f"{self.folder}: holds {_some(sorted(strange))} but no {RUN}, so it is no run to resume; "
                    "choose another `output`, or move these files away"
                )
            return None
        stored = _read_info(self.folder / RUN)
        if config_hash(stored["config"]) != config_hash(self.config):
            listed = "".join(
                f"\n  {key}: {canonical(theirs)} there, {canonical(ours)} here"
                for key, (theirs, ours) in differences(stored["config"], self.config).items()
            )
            raise RecordError(f"{self.folder / RUN}: is of another config; choose another `output`.{listed}")
        return stored

    def _scores(self) -> dict[Key, dict]:
        path = self.folder / SCORES
        rows, size = read_jsonl(path)
        if path.exists() and size != path.stat().st_size:
            raise RecordError(
                f"{path}: the last line is damaged. Delete the file, it is derived: score again"
            )
        return _by_key(rows, check_score, path)


def _some(items: list) -> str:
    return ", ".join(map(str, items[:5])) + (", ..." if len(items) > 5 else "")


def _key(row: Mapping) -> Key:
    return row["doc_id"], row["repeat"]


def _read_info(path: Path) -> dict:
    info = read_json(path)
    if info.get("schema") != SCHEMA or "config" not in info:
        raise RecordError(
            f"{path}: has schema {info.get('schema')!r}, this program reads {SCHEMA}; choose another "
            "`output`, or read it with the commit it names"
        )
    return info


def _read_samples(path: Path) -> tuple[dict[Key, Sample], int]:
    rows, size = read_jsonl(path)
    return _by_key(rows, check_sample, path), size


def _by_key(rows: Iterable[Mapping], check: Callable, where: object) -> dict[Key, dict]:
    """Rows by (doc_id, repeat). No writer repeats a key, so a repeated one was copied in by hand: equal
    rows count once, different ones leave nobody to say which is true and raise RecordError."""
    found, lines = {}, {}
    for number, row in enumerate(rows, 1):
        try:
            check(row)
        except RecordError as error:
            raise RecordError(f"{where}:{number}: {error}") from None
        first = found.setdefault(_key(row), dict(row))
        line = lines.setdefault(_key(row), number)
        if first != row:
            raise RecordError(
                f"{where}:{number}: contradicts line {line} about document {_key(row)}; delete one"
            )
    return found
