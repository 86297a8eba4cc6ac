"""One run's folder: append a document, die at any moment, open it again, finish exactly what is missing.

    with Run.open(folder, config, environment() | {"documents": {"gsm8k": 1319}}) as run:
        for doc in documents:
            if (doc.id, 0) not in run.done:
                run.append(generate(doc))           # on disk when this returns
        run.write_scores(score(run.samples()))      # as often as the scorer changes
        run.update(status="finished")

The key of a sample is (config hash, doc_id, repeat): the hash is checked when a folder is opened, the rest
when a sample is appended. What a run can be read for is what it holds: `status` only tells people.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from unmask.records.environment import now
from unmask.records.files import RecordError, append_line, in_place, lock, read_json, sealed, write_atomic
from unmask.records.identity import canonical, config_hash, differences
from unmask.records.reading import (
    CONFIG_HASH,
    RUN,
    SAMPLES,
    SCORES,
    Key,
    ScoreKey,
    archives_in,
    by_key,
    check_config,
    read_info,
    read_samples,
    read_scores,
    sample_key,
    score_key,
    seal_of,
    some,
    stored_info,
)
from unmask.records.sample import SCHEMA, Sample, check_sample
from unmask.records.score import Score, check_score
from unmask.records.trace import Trace, read_traces, write_traces

if TYPE_CHECKING:
    from unmask.records.archive import Archived

log = logging.getLogger(__name__)

_OWN = ("schema", "config_hash", "config", "seal", "created", "resumed", "pid", "checksum")
_NO_CIRCUMSTANCE = ("time", "metric")  # may differ on every resume

DERIVED = {"summary", "counts"}
UNSCORED = {"metric": None, "correct": None, "extraction_failed": False, "extracted": None, "target": None}


def find_runs(root: Path) -> tuple[list["Run"], list[str]]:
    """Every run in a folder, opened with `Run.read`, in order of name; and a message for each that cannot be.

    root: a folder of run folders and archives (*.parquet, see `archive`), or one archive. A run's folder is
    read instead of an archived run of its name, which it goes on with.

    What is damaged, of another schema, or has samples but no run.json is left out, and its message names it
    and says why. Folders inside a run's folder are not looked into: they are other collections.
    """
    root, runs, problems = Path(root), {}, []
    folders = sorted(path for path in root.glob("[!.]*") if _looks_like_a_run(path)) if root.is_dir() else []
    for folder in folders:
        try:
            runs[folder.name] = Run.read(folder)
        except RecordError as error:
            problems.append(str(error))
    if files := archives_in(root):
        from unmask.records import archive  # pyarrow, which a folder does not need

        archived, unread = archive.read_all(files)
        taken = {folder.name for folder in folders}
        runs |= {each.name: Run._of(each) for each in archived if each.name not in taken}
        problems += unread
    return [runs[name] for name in sorted(runs)], problems


def _looks_like_a_run(folder: Path) -> bool:
    samples = folder / SAMPLES  # empty without a run.json: a run that begins just now
    return (folder / RUN).exists() or (samples.exists() and samples.stat().st_size > 0)


class Run:
    """A run folder, made by `Run.open` (to write: one process at a time) or `Run.read` (to look).

    Attributes: `folder`, of a run in an archive FILE/NAME, where nothing is on disk; `config`; `info`, the
    content of run.json; `notes`, what was repaired on opening.
    """

    folder: Path
    config: dict
    info: dict
    notes: list[str]

    def __init__(self, folder: Path, config: Mapping, info: Mapping):
        self.folder, self.config, self.info = Path(folder), dict(config), dict(info)
        self.notes = []
        self._meta = self.info
        self._archived: Archived | None = None  # an archive's copy, as long as the folder is not there
        self._read: dict[Key, Sample] | None = {}  # `_samples`; None: still to be asked of the archive
        self._batches: int | None = None  # `next_batch`, once it was asked for
        self._file: BinaryIO | None = None  # samples.jsonl, locked; None until the first write
        self._size = 0  # bytes of it that this process knows
        self._writable = False
        self._resuming = False  # samples of an earlier process are here, and this one has added none

    @classmethod
    def open(cls, folder: Path, config: Mapping, meta: Mapping) -> "Run":
        """Start a run, or resume the one in `folder`, on whatever machine and commit.

        Nothing is written, repaired or locked before the first write; `claim()` is one. `meta` (see
        `environment`) goes into run.json; when samples are added to an older run, what differs from the
        first time is added under `resumed` and logged.

        RecordError if the folder holds another config's run or something that is no run, or if its files are
        damaged beyond the last line of samples.jsonl; at the first write, if another process is writing.
        """
        run = cls(folder, json.loads(canonical(config)), json.loads(json.dumps(meta, allow_nan=False)))
        run._writable = True
        if stored := stored_info(run.folder, run.config):
            run.info = stored
            run._read, _ = read_samples(run.folder / SAMPLES, run.seal)
        elif not run.folder.exists() and (archived := _archived(run.folder)):
            check_config(archived.info, run.config, run.folder)
            run.info, run._archived, run._read = archived.info, archived, None
        return run

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """A run as it is on disk now, also while it is being written; repairs nothing, writes nothing.

        Without such a folder, the run of its name in an archive beside it, or in the archive that the path
        leads into (FILE.parquet/NAME).
        """
        if not (Path(folder) / RUN).exists() and (archived := _archived(Path(folder))):
            return cls._of(archived)
        info = read_info(Path(folder) / RUN)
        run = cls(folder, info["config"], info)
        run._read, _ = read_samples(run.folder / SAMPLES, run.seal)
        return run

    @classmethod
    def find(cls, folder: Path) -> "Run | None":
        """As `read`; None where there is no run of this name."""
        if not (Path(folder) / RUN).exists() and not _archived(Path(folder)):
            return None
        return cls.read(folder)

    @classmethod
    def _of(cls, archived: "Archived") -> "Run":
        run = cls(archived.folder, archived.info["config"], archived.info)
        run._archived, run._read = archived, None
        return run

    # What is there

    @property
    def seal(self) -> str:
        """With what its rows are sealed."""
        return seal_of(self.info) if "config_hash" in self.info else config_hash(self.config)

    @property
    def _samples(self) -> dict[Key, Sample]:
        if self._read is None:
            self._read = dict(self._archived.samples)
        return self._read

    @property
    def done(self) -> Set[Key]:
        """Keys (doc_id, repeat) of the samples on disk, a live view."""
        return self._samples.keys()

    @property
    def next_batch(self) -> int:
        """A number that no batch on disk has."""
        if self._batches is None:
            self._batches = 1 + max((sample["batch"] for sample in self._samples.values()), default=-1)
        return self._batches

    def samples(self) -> list[Sample]:
        """Every sample, in order of document and repeat."""
        return [dict(self._samples[key]) for key in sorted(self._samples)]

    def scores(self, metric: str) -> list[Score]:
        """Scores by this metric of the samples on disk, in order of document and repeat."""
        rows = self._scores()
        return [rows[key] for key in sorted(rows) if key[2] == metric]

    def every_score(self) -> list[Score]:
        """All scores of the samples on disk, in order of document, repeat and metric."""
        rows = self._scores()
        return [rows[key] for key in sorted(rows)]

    def traces(self) -> dict[Key, Trace]:
        """Traces by (doc_id, repeat), of the few documents that have one."""
        return dict(self._archived.traces) if self._archived else read_traces(self.folder, self.seal)

    @property
    def metrics(self) -> list[str]:
        """The metrics that at least one sample is scored by, sorted."""
        return sorted({metric for _, _, metric in self._scores()})

    def scored(self, metric: str | None, keys: Set[Key] | None = None) -> list[dict]:
        """Samples (of these keys; default: all) joined with their scores by this metric, in order; None joins
        them with no score, as of a task that only measures speed.

        RecordError, naming metric and documents, where a sample or its score is missing; of all, where there
        are fewer than the run's summary counts.
        """
        counted = self.info.get("summary", {}).get("samples", 0)
        if keys is None and len(self.done) < counted:
            raise RecordError(
                f"{self.folder / SAMPLES}: holds {len(self.done)} of the {counted} answers that its summary "
                "counts. Make the others again with the command that made the run"
            )
        keys = set(self.done if keys is None else keys)
        if absent := sorted(keys - self.done):
            raise RecordError(
                f"{self.folder / SAMPLES}: {len(absent)} of {len(keys)} documents are not there: "
                f"{some(absent)}. Generate them with the command that made the run"
            )
        if metric is None:
            return [self._samples[key] | UNSCORED for key in sorted(keys)]
        scores = {sample_key(row): row for row in self.scores(metric)}
        if missing := sorted(keys - scores.keys()):
            raise RecordError(
                f"{self.folder / SCORES}: {len(missing)} of {len(keys)} samples have no score by {metric}: "
                f"{some(missing)}. Score them with the command that made the run and task.metric={metric}"
            )
        return [self._samples[key] | scores[key] for key in sorted(keys)]

    # Writing

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
        key = sample_key(sample)
        if key in self._samples:
            raise RecordError(f"{self.folder / SAMPLES}: document {key} is already there; skip `run.done`")
        text = json.dumps(sample, allow_nan=False)
        row = json.loads(text)
        line = _lines([row], self.seal).encode()
        append_line(self._file, line)
        self._size += len(line)
        self._samples[key] = row
        self._batches = max(self.next_batch, row["batch"] + 1)

    def write_scores(self, scores: Iterable[Mapping]) -> None:
        """Replace the scores of these documents by these metrics (see `Score` for the fields).

        Rows of other metrics stay, and of documents that are not named here, as when a smaller `limit` is
        scored again.
        """
        fresh = by_key(scores, check_score, score_key, "the new scores")
        if strange := sorted({sample_key(row) for row in fresh.values()} - self.done):
            raise RecordError(f"{self.folder / SCORES}: no samples for these scores: {some(strange)}")
        before = self._scores()
        if before | fresh == before:
            return
        self._begin()
        self._write_scores(self._scores() | fresh)

    def write_traces(self, traces: Iterable[Trace]) -> None:
        """Replace the traces."""
        self._begin()
        write_traces(self.folder, traces, self.seal)

    def update(self, **meta: object) -> None:
        """Set keys of run.json (`status="finished"`, ...); the time goes into `updated`.

        Of an archived run nothing is written where only what follows from its answers is another, as after a
        change of the program.
        """
        if own := meta.keys() & set(_OWN):
            raise RecordError(f"{self.folder / RUN}: {sorted(own)} are not the caller's to change")
        meta = json.loads(json.dumps(meta, allow_nan=False))
        changed = {key for key, value in meta.items() if self.info.get(key, ...) != value}
        if (self._archived and changed <= DERIVED) or ((self.folder / RUN).exists() and not changed):
            self.info = self.info | meta
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
        if self._file and not in_place(self._file, self._size):
            self._follow()
        if self._file:
            return
        if self._archived:
            self._unpack()
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._file = lock(self.folder / SAMPLES)
        except BlockingIOError:
            info = read_json(self.folder / RUN) if (self.folder / RUN).exists() else {}
            raise RecordError(
                f"{self.folder / SAMPLES}: another process (pid {info.get('pid')}) is writing this run. "
                "Wait for it, stop it, or choose another `run_folder`"
            ) from None
        try:
            stored = stored_info(self.folder, self.config)  # again, now that it cannot change
            if stored:
                self.info, self._resuming = stored, True
            self._read, size = read_samples(self.folder / SAMPLES, self.seal)
            self._batches = None
            self._repair(size)
            self._size = size
            if not stored:
                self._write_info(self._new())
        except BaseException:
            self.close()
            raise

    def _follow(self) -> None:
        """Let go of a file that is no longer the one at its path, if the one there holds all that this
        process knows; else OSError."""
        path = self.folder / SAMPLES
        self.close()
        try:
            there, _ = read_samples(path, self.seal)
        except RecordError as error:
            raise OSError(f"{path}: was changed while this run was writing ({error})") from error
        if lost := sorted(key for key, row in self._samples.items() if there.get(key) != row):
            raise OSError(
                f"{path}: was deleted, moved or replaced while this run was writing (by an editor, rsync?), "
                f"and {len(lost)} of {len(self._samples)} documents are not in it: {some(lost)}. Put the old "
                "file back if it was moved; the same command then makes what is missing"
            )
        self._note(f"{path}: was replaced while this run was writing; all documents are in the new file")

    def _unpack(self) -> None:
        """Copy the archived run into its folder, whole or not at all; another process may do the same."""
        if self.folder.parent.is_file():
            raise RecordError(
                f"{self.folder.parent}: an archive is never written to; give its folder as results"
            )
        self._note(f"{self.folder}: goes on with the run of {self._archived.file}, which stays as it is")
        temporary = self.folder.with_name(f".{self.folder.name}.{os.getpid()}")
        temporary.mkdir(parents=True, exist_ok=True)
        write_atomic(temporary / SAMPLES, _lines(self.samples(), self.seal))
        write_atomic(temporary / SCORES, _lines(self.every_score(), self.seal))
        if traces := self.traces():
            write_traces(temporary, traces.values(), self.seal)
        write_atomic(temporary / RUN, _text(self.info))
        try:
            temporary.rename(self.folder)
        except OSError:
            if not (self.folder / RUN).exists():
                raise
            shutil.rmtree(temporary)
        self._archived = None

    def _repair(self, size: int) -> None:
        """Cut a torn last line; drop scores of answers that are gone, others may come in their stead."""
        torn = os.fstat(self._file.fileno()).st_size - size
        if torn:
            self._file.truncate(size)
            os.fsync(self._file.fileno())
            self._note(f"{self.folder / SAMPLES}: cut {torn} bytes of an interrupted last line")
        every, kept = read_scores(self.folder / SCORES, self.seal), self._scores()
        if len(kept) < len(every):
            self._write_scores(kept)
            self._note(
                f"{self.folder / SCORES}: dropped {len(every) - len(kept)} scores of samples that are gone"
            )

    def _note(self, words: str) -> None:
        self.notes.append(words)
        log.warning(words)

    def _new(self) -> dict:
        own = {"schema": SCHEMA, "config_hash": config_hash(self.config), "seal": CONFIG_HASH}
        own |= {"status": "running"}
        return own | self._meta | own | {"config": self.config, "created": now(), "resumed": []}

    def _resumed(self, stored: dict) -> dict:
        meta = {key: value for key, value in self._meta.items() if key not in _NO_CIRCUMSTANCE}
        changed = differences({key: stored[key] for key in meta if key in stored}, meta)
        if changed:
            listed = ", ".join(
                f"{key}: {canonical(old)} -> {canonical(new)}" for key, (old, new) in changed.items()
            )
            log.warning(
                f"{self.folder}: resumed in other circumstances ({listed}). Answers of several machines or "
                "commits count, their times only where settings took turns"
            )
        entry = {"time": now(), "changed": {key: new for key, (_, new) in changed.items()}}
        return stored | {"status": "running", "resumed": [*stored.get("resumed", []), entry]}

    def _write_info(self, info: dict) -> None:
        info = info | {"pid": os.getpid(), "updated": now()}
        write_atomic(self.folder / RUN, _text(info))
        self.info = info

    def _write_scores(self, rows: Mapping[ScoreKey, Mapping]) -> None:
        write_atomic(self.folder / SCORES, _lines((rows[key] for key in sorted(rows)), self.seal))

    def _scores(self) -> dict[ScoreKey, Score]:
        """All scores of the samples on disk."""
        rows = self._archived.scores if self._archived else read_scores(self.folder / SCORES, self.seal)
        return {key: row for key, row in rows.items() if key[:2] in self._samples}


def _archived(folder: Path) -> "Archived | None":
    """The run of a folder's name in an archive beside it, or in the one that the path leads into."""
    if not archives_in(folder.parent):
        return None
    from unmask.records import archive

    return archive.find(folder)


def _text(info: Mapping) -> str:
    """run.json"""
    return json.dumps(sealed(info), indent=2, allow_nan=False) + "\n"


def _lines(rows: Iterable[Mapping], of: str) -> str:
    """Rows as JSON lines, each with its checksum."""
    return "".join(json.dumps(sealed(row, of), allow_nan=False) + "\n" for row in rows)
