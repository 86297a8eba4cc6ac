"""An archive holds all of a collection, and says when it was changed."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from unmask.paths import ROOT
from unmask.records import RecordError, archive, find_runs

SLICE = ROOT / "tests" / "reference"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "all.parquet"
    archive.write(find_runs(SLICE)[0], path, ["threads=1"])
    return path


def same(one, other):
    assert one.folder.name == other.folder.name and one.info == other.info and one.config == other.config
    assert one.samples() == other.samples() and one.traces() == other.traces()
    assert [list(s["forwards"]) for s in one.samples()] == [list(s["forwards"]) for s in other.samples()]
    assert one.metrics == other.metrics and one.done == other.done
    for metric in one.metrics:
        assert one.scores(metric) == other.scores(metric) and one.scored(metric) == other.scored(metric)


def test_everything_survives(file):
    (runs, problems), (archived, none) = find_runs(SLICE), find_runs(file)
    assert not problems and not none and len(runs) == len(archived) > 5
    for one, other in zip(runs, archived, strict=True):
        same(one, other)
    assert archive.settings_of(file) == ["threads=1"]


def test_a_collection_may_be_folders_and_archives(file, tmp_path):
    first = next(SLICE.iterdir())
    shutil.copytree(first, tmp_path / "another-run")
    runs, problems = find_runs(tmp_path)
    assert not problems and [r.folder.name for r in runs] == sorted(r.folder.name for r in runs)
    assert len(runs) == len(find_runs(file)[0]) + 1


def test_an_archive_cannot_be_written_to(file):
    run = find_runs(file)[0][0]
    with pytest.raises(RecordError, match="opened by Run.read"):
        run.update(status="other")


def test_what_was_changed_is_found_when_it_is_read(file):
    table = pq.read_table(file)
    texts = table.column("text").to_pylist()
    changed = table.set_column(table.schema.get_field_index("text"), "text", [["x", *texts[1:]]])
    changed = changed.cast(table.schema)
    sizes = [
        pq.ParquetFile(file).metadata.row_group(i).num_rows
        for i in range(pq.ParquetFile(file).num_row_groups)
    ]
    with pq.ParquetWriter(file, table.schema) as writer:
        start = 0
        for size in sizes:
            writer.write_table(changed.slice(start, size), row_group_size=size)
            start += size
    first, second, *_ = find_runs(file)[0]
    with pytest.raises(RecordError, match=f"{first.folder.name}: was changed after it was archived"):
        first.samples()
    assert second.samples()


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "another table"])
def test_a_damaged_archive_is_left_out_with_the_reason(file, tmp_path, damage):
    whole = file.read_bytes()
    if damage == "another table":
        pq.write_table(pq.read_table(file, columns=["run"]), file)
    else:
        file.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"no parquet"}[damage])
    runs, problems = find_runs(tmp_path)
    assert runs == [] and len(problems) == 1 and "all.parquet" in problems[0]


def test_an_unfinished_run_is_refused(tmp_path):
    runs = find_runs(SLICE)[0]
    runs[0].info = runs[0].info | {"status": "running"}
    with pytest.raises(RecordError, match="is running, not finished"):
        archive.write(runs, tmp_path / "x.parquet")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_one(tmp_path, capsys):
    archive.main([str(SLICE), str(tmp_path / "x.parquet"), "seed=1"])
    assert "runs" in capsys.readouterr().out
    assert archive.settings_of(tmp_path / "x.parquet") == ["seed=1"]
    assert json.dumps(find_runs(tmp_path)[0][0].info)
    with pytest.raises(ValueError, match="give a folder"):
        archive.main([])
