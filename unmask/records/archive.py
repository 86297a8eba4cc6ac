"""A finished collection as one Parquet file, read like its folder of runs:

    python -m unmask.records.archive results/mine results/mine.parquet [SETTING ...]

A row is a sample with its scores and its trace; a row group is a run, and the first row of it has run.json
and a checksum of the whole run. SETTING (as in task.subset_seed=null): what report.py adds to a command that
reads this file. Nothing is deleted; unfinished and damaged runs are refused.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from unmask.records.files import PUT_BACK, RecordError, unsealed
from unmask.records.reading import Key, ScoreKey, by_key, check_info, sample_key, score_key
from unmask.records.recipe import canonical
from unmask.records.run import Run, find_runs
from unmask.records.sample import Sample, check_sample
from unmask.records.score import Score, check_score
from unmask.records.trace import Trace

SUFFIX = ".parquet"
SETTINGS = b"unmask.settings"  # key of the file's metadata
LISTS = {"ids": pa.list_(pa.int32()), "commits": pa.list_(pa.int16())}
AS_TEXT = ("forwards", "positions")  # of a sample: kept as JSON, so that the order of roles stays
SCHEMA = pa.schema(
    [("run", pa.string()), ("info", pa.string()), ("checksum", pa.string())]
    + [(name, pa.int64()) for name in ("doc_id", "repeat", "prompt_length", "seed", "useful")]
    + [(name, pa.int64()) for name in ("max_new_tokens", "batch_size", "batch")]
    + [
        (name, pa.string())
        for name in ("task", "prompt_hash", "text", "finish", "commit", "machine", "session")
    ]
    + [(name, pa.string()) for name in (*AS_TEXT, "scores", "trace")]
    + [("seconds", pa.float64()), ("exact", pa.bool_())]
    + list(LISTS.items())
)


class ArchivedRun(Run):
    """A run of an archive, to look at. Its samples are read when they are asked for; `folder` is a name."""

    def __init__(self, file: Path, group: int, row: Mapping):
        self.file, self.group, self._checksum = file, group, row["checksum"]
        info = json.loads(row["info"])
        where = Path(file) / row["run"]
        info = check_info(unsealed(info, where, PUT_BACK), where)
        super().__init__(where, info["config"], info)
        self._sealed_info = json.loads(row["info"])

    def samples(self) -> list[Sample]:
        return [dict(self._samples[key]) for key in sorted(self._samples)]

    @property
    def _samples(self) -> dict[Key, Sample]:
        return self._content[0]

    @_samples.setter
    def _samples(self, nothing: dict) -> None:
        """The folder's reader fills this; here it is read from the file."""

    def _scores(self) -> dict[ScoreKey, Score]:
        return self._content[1]

    def traces(self) -> dict[Key, Trace]:
        return self._content[2]

    @cached_property
    def _content(self) -> tuple[dict, dict, dict]:
        """(samples, scores, traces) by key; RecordError where they are not what was written."""
        try:
            rows = pq.ParquetFile(self.file).read_row_group(self.group).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise RecordError(f"{self.folder}: cannot be read ({error}). {PUT_BACK}") from error
        samples, scores, traces = unpacked(rows)
        if checksum(self._sealed_info, samples, scores, traces) != self._checksum:
            raise RecordError(f"{self.folder}: was changed after it was archived. {PUT_BACK}")
        return (
            by_key(samples, check_sample, sample_key, self.folder),
            by_key(scores, check_score, score_key, self.folder),
            {sample_key(trace): trace for trace in traces},
        )


def read(file: Path) -> list[ArchivedRun]:
    """The runs of an archive, in order of name; RecordError where it is none, or damaged."""
    try:
        found = pq.ParquetFile(file)
        if found.schema_arrow.names != SCHEMA.names:
            raise RecordError(f"{file}: is no archive of runs (python -m unmask.records.archive makes them)")
        groups = range(found.num_row_groups)
        heads = [found.read_row_group(i, ["run", "info", "checksum"]).slice(0, 1).to_pylist() for i in groups]
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"{file}: is no Parquet file, or damaged ({error}). {PUT_BACK}") from error
    try:
        return [ArchivedRun(file, group, row) for group, (row,) in zip(groups, heads, strict=True)]
    except (TypeError, ValueError) as error:
        raise RecordError(f"{file}: {error}") from error


def write(runs: Iterable[Run], file: Path, settings: Sequence[str] = ()) -> int:
    """Archive finished runs; returns how many. RecordError for a run that is not finished."""
    runs = sorted(runs, key=lambda run: run.folder.name)
    for run in runs:
        if run.info.get("status") != "finished":
            raise RecordError(f"{run.folder}: is {run.info.get('status')}, not finished")
    if not runs:
        raise RecordError(f"{file}: no runs to archive")
    schema = SCHEMA.with_metadata({SETTINGS: json.dumps(list(settings)).encode()})
    partial = file.with_name(f".{file.name}.partial")
    with pq.ParquetWriter(
        partial, schema, compression="zstd", compression_level=19, write_statistics=False
    ) as writer:
        for run in runs:
            rows = packed(run)
            writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=len(rows))
    partial.replace(file)
    return len(runs)


def settings_of(file: Path) -> list[str]:
    """What report.py adds to a command that reads this archive."""
    try:
        return json.loads((pq.read_schema(file).metadata or {}).get(SETTINGS, b"[]"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RecordError(f"{file}: is no archive of runs, or damaged ({error})") from error


def packed(run: Run) -> list[dict]:
    """The rows of a run."""
    samples, traces = run.samples(), run.traces()
    scores = [score for metric in run.metrics for score in run.scores(metric)]
    info = run.sealed_info()
    rows = []
    for sample in samples:
        mine = [score for score in scores if sample_key(score) == sample_key(sample)]
        rows.append(
            {"run": run.folder.name, "info": None, "checksum": None, **sample}
            | {name: json.dumps(sample[name]) for name in AS_TEXT}
            | {"scores": json.dumps(mine), "trace": json.dumps(traces.get(sample_key(sample)))}
        )
    rows[0] |= {"info": json.dumps(info), "checksum": checksum(info, *unpacked(rows))}
    return rows


def unpacked(rows: Sequence[Mapping]) -> tuple[list[dict], list[dict], list[dict]]:
    """(samples, scores, traces) of a run's rows."""
    samples, scores, traces = [], [], []
    for row in rows:
        samples.append(
            {name: row[name] for name in Sample.__annotations__}
            | {name: json.loads(row[name]) for name in AS_TEXT}
        )
        scores += json.loads(row["scores"])
        traces += [trace] if (trace := json.loads(row["trace"])) else []
    return samples, scores, traces


def checksum(info: Mapping, samples: list, scores: list, traces: list) -> str:
    """Of all that an archive holds of a run."""
    return hashlib.sha256(canonical([info, samples, scores, traces]).encode()).hexdigest()[:16]


def main(arguments: list[str]) -> None:
    if len(arguments) < 2:
        raise ValueError("give a folder of runs and the file to write: results/mine results/mine.parquet")
    folder, file, *settings = arguments
    runs, problems = find_runs(Path(folder))
    if problems:
        raise RecordError("; ".join(problems))
    count = write(runs, Path(file), settings)
    print(f"{file}: {count} runs, {Path(file).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    from unmask.configuration.command_line import refusals

    with refusals():
        main(sys.argv[1:])
