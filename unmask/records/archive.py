"""A finished collection in one Parquet file, read like the folder of runs that it was made of.

    python -m unmask.records.archive FOLDER FILE.parquet [SETTING ...]

writes the runs of FOLDER (folders, and archives beside them) into FILE, reads them back and compares. It
deletes nothing. Unfinished and damaged runs are refused with their reason. SETTINGs, as `threads=1`, are
those that report.py puts before a command's own when it reads the collection.

The file is a table with a row per answer: the fields of `Sample`, its scores, and on the first row of a run
its run.json. pandas.read_parquet reads it. The table's metadata hold a checksum for each run. An archive is
never written to: where a run goes on, `Run.open` copies it into a folder first, which is read instead.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby, pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, NotRequired, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq

from unmask.records.files import RecordError, sealed, unsealed
from unmask.records.reading import Key, ScoreKey, archives_in, by_key, check_info, sample_key, score_key, some
from unmask.records.run import Run, find_runs
from unmask.records.sample import SCHEMA, Sample, check_sample
from unmask.records.score import Score, check_score
from unmask.records.trace import Trace, check_trace

SUFFIX = ".parquet"
METADATA = b"unmask"
MAKE_AGAIN = "Put the file back from a copy, or move it away"


def _list(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("item", kind, nullable=False))


def _struct(**kinds: type) -> pa.DataType:
    return pa.struct([_column(name, kind) for name, kind in kinds.items()])


def _column(name: str, kind: object) -> pa.Field:
    """The column of a field that is annotated with `kind`."""
    optional = get_origin(kind) is NotRequired
    nullable = optional or isinstance(kind, UnionType)
    (one,) = [each for each in get_args(kind) if each is not NoneType] if nullable else [kind]
    return pa.field(name, _KINDS[str if get_origin(one) is Literal else one], nullable=nullable)


_KINDS = {
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    str: pa.string(),
    list[int]: _list(pa.int64()),
    list[list[int]]: _list(_list(pa.int64())),
}
# An order is kept: the first role is the one whose forwards are the steps.
_KINDS[dict[str, int]] = _list(_struct(role=str, count=int))
_SCORE = {name: kind for name, kind in Score.__annotations__.items() if name not in ("doc_id", "repeat")}
COLUMNS = pa.schema(
    [
        _column("run", str),  # the name of its folder
        _column("run_json", str | None),
        *(_column(name, kind) for name, kind in Sample.__annotations__.items()),
        pa.field("scores", _list(_struct(**_SCORE)), nullable=False),
        _column("trace", str | None),
    ]
)
_OPTIONAL = [name for name, kind in Sample.__annotations__.items() if get_origin(kind) is NotRequired]
_PER_ROLE = [name for name, kind in Sample.__annotations__.items() if kind == dict[str, int]]


# Reading


@dataclass(frozen=True)
class Archived:
    """A run in an archive. Its answers are decoded and checked when they are asked for."""

    file: Path
    name: str
    rows: pa.Table
    checksum: str

    @property
    def folder(self) -> Path:
        """Where the run would lie if the file were a folder. There is nothing on disk."""
        return self.file / self.name

    @cached_property
    def info(self) -> dict:
        """The content of run.json."""
        try:
            info = json.loads(self.rows["run_json"][0].as_py())
        except (TypeError, ValueError, RecursionError):
            info = None
        if not isinstance(info, dict):
            raise RecordError(f"{self.folder}: has no run.json. {MAKE_AGAIN}")
        return check_info(info, self.folder, MAKE_AGAIN)

    @cached_property
    def _content(self) -> tuple[dict[Key, Sample], dict[ScoreKey, Score], dict[Key, Trace]]:
        rows = _decoded(self.rows)
        if _checksum(rows) != self.checksum:
            raise RecordError(
                f"{self.folder}: does not match its checksum: it was changed after it was written. "
                f"{MAKE_AGAIN}"
            )
        samples, scores, traces = [], [], {}
        for row in rows:
            sample = {name: row[name] for name in Sample.__annotations__}
            for name in [name for name in _OPTIONAL if sample[name] is None]:
                del sample[name]
            for name in _PER_ROLE:
                sample[name] = {each["role"]: each["count"] for each in row[name]}
            samples.append(sample)
            key = {"doc_id": row["doc_id"], "repeat": row["repeat"]}
            scores += [key | score for score in row["scores"]]
            if row["trace"] is not None:
                traces[sample_key(row)] = check_trace(json.loads(row["trace"]), self.folder)
        return (
            by_key(samples, check_sample, sample_key, self.folder),
            by_key(scores, check_score, score_key, self.folder),
            traces,
        )

    @property
    def samples(self) -> dict[Key, Sample]:
        return self._content[0]

    @property
    def scores(self) -> dict[ScoreKey, Score]:
        return self._content[1]

    @property
    def traces(self) -> dict[Key, Trace]:
        return self._content[2]


def read(file: Path) -> list[Archived]:
    """The runs of an archive, in order of name. RecordError where it is none, is of another schema, or was
    changed."""
    try:
        stat = file.stat()
        return list(_read(file, (stat.st_ino, stat.st_size, stat.st_mtime_ns)))
    except RecordError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:  # Arrow's errors are of all these kinds
        why = (str(error).splitlines() or [""])[0][:200]
        raise RecordError(f"{file}: cannot be read as an archive ({why}). {MAKE_AGAIN}") from error


@lru_cache(maxsize=2)  # every setting of a sweep looks for its run
def _read(file: Path, _version: tuple) -> list[Archived]:
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        sums = _metadata(file, parquet.schema_arrow)["runs"]
        table = parquet.read().combine_chunks()
        for column in [name for name in _OPTIONAL if name not in table.column_names]:
            at = COLUMNS.get_field_index(column)
            table = table.add_column(at, COLUMNS.field(at), pa.nulls(len(table), COLUMNS.field(at).type))
        if not table.schema.equals(COLUMNS):
            raise RecordError(f"{file}: has other columns than this program writes. {MAKE_AGAIN}")
    runs, start = [], 0
    for name, group in groupby(table["run"].to_pylist()):
        length = len(list(group))
        runs.append(Archived(file, name, table.slice(start, length), sums.get(name)))
        start += length
    if [run.name for run in runs] != list(sums):
        raise RecordError(f"{file}: its rows are not those of the runs that it names. {MAKE_AGAIN}")
    for run in runs:
        run.info  # noqa: B018 (checked now: runs are chosen by it)
    return runs


def find(folder: Path) -> Archived | None:
    """The run of a folder's name in an archive beside the folder, or in the one that its path leads into
    (FILE.parquet/NAME). RecordError where two archives hold other answers of it."""
    found = [run for file in archives_in(folder.parent) for run in read(file) if run.name == folder.name]
    return _one(found) if found else None


def read_all(files: Iterable[Path]) -> tuple[list[Archived], list[str]]:
    """The runs of several archives, each once, and a message for each file or run that cannot be read."""
    same, runs, problems = {}, [], []
    for file in files:
        try:
            for run in read(file):
                same.setdefault(run.name, []).append(run)
        except RecordError as error:
            problems.append(str(error))
    for copies in same.values():
        try:
            runs.append(_one(copies))
        except RecordError as error:
            problems.append(str(error))
    return runs, problems


def _one(same: Sequence[Archived]) -> Archived:
    """One of several archived runs of a name; RecordError unless they are copies."""
    if len({run.checksum for run in same}) > 1:
        files = " and ".join(str(run.file) for run in same)
        raise RecordError(f"{files}: hold other answers of {same[0].name}; move one of them away")
    return same[0]


def overrides_of(results: Path) -> list[str]:
    """Settings that a collection was made with, which report.py puts before a command's own when it reads it:
    those that its archives name. What is no archive names none."""
    found = []
    for file in archives_in(Path(results)):
        try:
            found += _metadata(file, pq.read_schema(file))["overrides"]
        except (OSError, ValueError, pa.ArrowException):
            continue
    return list(dict.fromkeys(found))


def _metadata(file: Path, schema: pa.Schema) -> dict:
    """What an archive says of itself: {schema, overrides, runs: {name: checksum}}."""
    try:
        found = json.loads((schema.metadata or {})[METADATA])
    except (KeyError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RecordError(f"{file}: is no archive of runs (python -m unmask.records.archive makes one)")
    found = unsealed(found, file, MAKE_AGAIN)
    if found.get("schema") != SCHEMA:
        raise RecordError(f"{file}: has schema {found.get('schema')!r}, and this program reads {SCHEMA}")
    return found


def _decoded(rows: pa.Table) -> list[dict]:
    """Rows as Python values; twice as fast as Table.to_pylist."""
    columns = [_values(column.combine_chunks()) for column in rows.columns]
    return [dict(zip(rows.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(array: pa.Array) -> list:
    kind = array.type
    if pa.types.is_list(kind) and not array.null_count:
        items, ends = _values(array.flatten()), [0]
        for length in array.value_lengths().to_pylist():
            ends.append(ends[-1] + length)
        return [items[start:end] for start, end in pairwise(ends)]
    if pa.types.is_struct(kind):
        columns = [_values(column) for column in array.flatten()]
        names = [field.name for field in kind]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if pa.types.is_integer(kind) and not array.null_count:
        return array.to_numpy(zero_copy_only=False).tolist()
    return array.to_pylist()


def _checksum(rows: Sequence[dict]) -> str:
    """16 hex digits of the SHA-256 of a run's rows as JSON, in the order of columns and roles."""
    rows = [{k: v for k, v in row.items() if v is not None or k not in _OPTIONAL} for row in rows]
    text = json.dumps(rows, separators=(",", ":"))  # NaN too: check_sample refuses it
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Writing


def write(results: Path, file: Path, overrides: Iterable[str] = ()) -> int:
    """Write all runs of a collection into a new file; returns how many.

    RecordError, and nothing written, where a run is not finished, or anything in it is damaged or would not
    come back as it is: every reason, a line each. ValueError where the file exists or there are no runs.
    """
    results, file = Path(results), Path(file)
    if file.exists():
        raise ValueError(f"{file}: is there already; name another file")
    if file.suffix != SUFFIX:
        raise ValueError(f"{file}: must end in {SUFFIX}")
    runs, refused = find_runs(results)
    tables = []
    for run in runs:
        try:
            tables.append(_packed(run))
        except RecordError as error:
            refused.append(str(error))
    if refused:
        raise RecordError("\n".join([f"{len(refused)} runs cannot be archived:", *refused]))
    if not runs:
        raise ValueError(f"{results}: has no runs")
    sums = {run.folder.name: _checksum(_decoded(t)) for run, t in zip(runs, tables, strict=True)}
    metadata = sealed({"schema": SCHEMA, "overrides": list(overrides), "runs": sums})
    table = pa.concat_tables(tables).replace_schema_metadata({METADATA: json.dumps(metadata)})
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        pq.write_table(table, temporary, compression="zstd", compression_level=19, write_page_checksum=True)
        _check_copy(runs, read(temporary))
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return len(runs)


def _packed(run: Run) -> pa.Table:
    """A run as rows; RecordError where it is not finished or does not fit into the columns."""
    if (status := run.info.get("status")) != "finished":
        raise RecordError(
            f"{run.folder}: is {status}, not finished: the command that made it goes on with it"
        )
    if run.info.get("likelihoods"):
        raise RecordError(
            f"{run.folder}: holds likelihoods, which are not archived: move it out of the folder"
        )
    if not run.done:
        raise RecordError(f"{run.folder}: has no answers")
    if metric := run.info.get("metric"):
        run.scored(metric)  # every answer has its score
    traces = run.traces()
    if strange := sorted(traces.keys() - run.done):
        raise RecordError(f"{run.folder}: has traces of answers that are not there: {some(strange)}")
    scores: dict[Key, list] = {}
    for row in run.every_score():
        scores.setdefault(sample_key(row), []).append({name: row[name] for name in _SCORE})
    rows = []
    for sample in run.samples():
        key = sample_key(sample)
        for name in _PER_ROLE:
            sample[name] = [{"role": role, "count": count} for role, count in sample[name].items()]
        trace = json.dumps(traces[key]) if key in traces else None
        rows.append({**sample, "run": run.folder.name, "scores": scores.get(key, []), "trace": trace})
    rows[0]["run_json"] = json.dumps(sealed(run.info))
    try:
        return pa.Table.from_pylist(rows, schema=COLUMNS)
    except (ValueError, OverflowError, TypeError, pa.ArrowException) as error:
        raise RecordError(f"{run.folder}: does not fit into an archive ({error})") from error


def _check_copy(runs: Sequence[Run], copies: Sequence[Archived]) -> None:
    for run, copy in zip(runs, copies, strict=True):
        samples = [copy.samples[key] for key in sorted(copy.samples)]
        scores = [copy.scores[key] for key in sorted(copy.scores)]
        there = run.folder.name, run.info, run.samples(), run.every_score(), run.traces()
        if there != (copy.name, copy.info, samples, scores, copy.traces):
            raise RecordError(f"{run.folder}: would not come back from an archive as it is")


def main(given: Sequence[str]) -> None:
    if len(given) < 2 or not all("=" in word for word in given[2:]):
        sys.exit(__doc__)
    file = Path(given[1])
    try:
        count = write(Path(given[0]), file, given[2:])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{file}: {count} runs, {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
