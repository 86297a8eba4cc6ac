"""A collection in one file: it is read like the folder that it was made of, or a message says why not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unmask.records import RecordError, Run, archive, find_runs
from unmask.records.collection import everything
from unmask.records.trace import write_traces

ROOT = Path(__file__).parents[2]
STRICT, LENIENT = "exact_match,strict", "exact_match,lenient"


def config(number):
    task = {"name": "toy", "max_new_tokens": 8, "prompts": "ab"}
    models = {"denoiser": {"name": "tiny", "adapter": None, "weights": "w"}}
    decoder = {"name": "apd", "mixture_weight": number}
    common = {"batch_size": 1, "seed": 0, "device": "cpu", "dtype": "float32", "threads": 1}
    return {"task": task, "models": models, "roles": ["denoiser"], "decoder": decoder} | common


@pytest.fixture
def results(tmp_path, sample, score):
    """Two finished runs with everything that a run can have."""
    for number in (0, 1):
        folder = tmp_path / "results" / f"run{number}"
        with Run.open(folder, config(number), {"metric": STRICT, "documents": {"toy": 3}}) as run:
            roles = {
                "forwards": {"z": 3, "a": 0},
                "positions": {"z": 24, "a": 0},
            }  # not in alphabetical order
            run.append(sample(2, session="0badcafe", seconds=None, exact=True, **roles))
            run.append(sample(0, text="ünï\u2028\n\0", seconds=1 / 3, exact=False, seed=-7, **roles))
            run.append(sample(1, ids=[], commits=[], useful=0, finish="length", **roles))
            run.append(sample(1, repeat=1, **roles))
            keys = sorted(run.done)
            for metric in (STRICT, LENIENT):
                run.write_scores(score(*key, correct=0.1 + number / 3, metric=metric) for key in keys)
            run.write_scores([score(0) | {"correct": None, "extracted": None, "target": None}])
            run.update(status="finished", summary={"accuracy": 0.1, "accuracy_interval": [0, 1e-9]})
    steps = {
        "drafted": [[], [1]],
        "accepted": [0, 1],
        "blocks": ["bw", "fb"],
        "forwards": {"denoiser": [1, 3]},
    }
    trace = {"doc_id": 0, "repeat": 0, "question": None, **steps}
    write_traces(folder, [trace], run.seal)
    return tmp_path / "results"


@pytest.fixture
def file(results):
    """Their archive, with nothing else beside it."""
    target = results.parent / "archived" / "both.parquet"
    target.parent.mkdir()
    archive.write(results, target, ["threads=1"])
    return target


def content(run):
    scores = [run.scores(metric) for metric in run.metrics]
    return run.folder.name, run.config, run.info, run.done, run.samples(), scores, run.traces()


def contents(results):
    runs, problems = find_runs(results)
    assert not problems
    return [content(run) for run in runs]


def test_everything_comes_back(results, file):
    assert contents(file) == contents(file.parent) == contents(results)
    (there, *_), (here, *_) = find_runs(file)[0], find_runs(results)[0]
    for ours, theirs in zip(there.samples(), here.samples(), strict=True):
        assert {name: type(value) for name, value in ours.items()} == {
            name: type(value) for name, value in theirs.items()
        }
        assert list(ours["forwards"]) == list(theirs["forwards"]), "the first role is the step role"
    assert there.scored(LENIENT) == here.scored(LENIENT)
    pd.testing.assert_frame_equal(everything(find_runs(file)[0]).rows, everything(find_runs(results)[0]).rows)


def test_a_run_is_found_by_its_path(results, file):
    for path in (file / "run1", file.parent / "run1"):
        assert content(Run.read(path)) == content(Run.find(path)) == content(Run.read(results / "run1"))
    assert Run.find(file.parent / "run2") is None
    with pytest.raises(RecordError, match="run2"):
        Run.read(file.parent / "run2")
    assert str(file / "run1") == str(Run.read(file.parent / "run1").folder)


def test_an_archive_is_read_only(results, file, sample):
    before = file.read_bytes()
    for run in find_runs(file)[0]:
        with pytest.raises(RecordError, match="Run.open"):
            run.append(sample(9))
    with pytest.raises(RecordError, match="never written to; give its folder as results"):
        Run.open(file / "run0", config(0), {}).append(sample(9))
    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == [file.name]


def test_an_archived_run_goes_on_in_a_folder_which_takes_its_place(results, file, sample, score):
    whole = content(Run.read(results / "run1"))
    with Run.open(file.parent / "run1", config(1), {}) as run:
        assert content(run) == whole and run.next_batch == 3
        run.write_scores(run.scores(STRICT))
        run.update(status="finished")
        assert not run.folder.exists(), "nothing is new, so nothing is written"
        run.append(sample(5))
        run.write_scores([score(5)])
    (run0, run1), problems = find_runs(file.parent)
    assert not problems and content(run0) == content(Run.read(results / "run0"))
    assert run1.folder == file.parent / "run1" and (5, 0) in run1.done
    assert run1.samples()[:-1] == whole[4] and run1.traces() == whole[6]
    assert run1.info["created"] == whole[2]["created"]
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name, "run1"]
    with pytest.raises(RecordError, match="mixture_weight: 0 there, 2 here"):
        Run.open(file.parent / "run0", config(2), {})


def test_what_follows_from_archived_answers_makes_no_folder(results, file):
    run = Run.open(file.parent / "run1", config(1), {})
    run.update(status=run.info["status"], summary={"samples": len(run.done), "new": 1}, counts={"eos_id": 3})
    assert run.info["summary"]["new"] == 1 and not run.folder.exists()
    run.update(metric=LENIENT)
    assert run.folder.exists() and "goes on with the run of" in run.notes[0]


def test_archives_and_folders_lie_together(results, file, tmp_path):
    shutil.copy(file, results / "copy.parquet")
    shutil.copy(file, results / "again.parquet")
    expected = contents(results)
    shutil.rmtree(results / "run0")
    assert contents(results) == expected
    archive.write(results, tmp_path / "joined.parquet")
    assert contents(tmp_path / "joined.parquet") == expected


def test_two_archives_that_contradict_each_other_are_named(results, file, sample, score):
    with Run.open(results / "run0", config(0), {}) as run:
        run.append(sample(7))
        run.write_scores([score(7)])
        run.update(status="finished")
    archive.write(results, file.parent / "other.parquet")
    (run,), (problem,) = find_runs(file.parent)
    assert run.folder.name == "run1" and "both.parquet" in problem and "other.parquet" in problem
    with pytest.raises(RecordError, match="hold other answers of run0"):
        Run.read(file.parent / "run0")


def test_it_says_with_which_settings_it_was_made(results, file):
    archive.write(results, file.parent / "second.parquet", ["threads=1", "seed=3"])
    assert archive.overrides_of(file) == ["threads=1"]
    assert archive.overrides_of(file.parent) == ["threads=1", "seed=3"]
    assert archive.overrides_of(results) == archive.overrides_of(results / "nothing") == []


def test_pandas_reads_it(file, sample):
    table = pd.read_parquet(file)
    assert len(table) == 8 and set(sample()) < set(table.columns)
    assert table.groupby("run").useful.sum().to_dict() == {"run0": 6, "run1": 6}


def unfinished(folder):
    with Run.open(folder, config(1), {}) as run:
        run.update(status="running")


def unscored(folder):
    (folder / "scores.jsonl").unlink()


def damaged(folder):
    path = folder / "samples.jsonl"
    path.write_bytes(path.read_bytes().replace(b"0badcafe", b"0badcaff"))


def too_large(folder):
    text = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(text[0]) | {"seed": 2**64}
    row.pop("checksum")
    from unmask.records.files import sealed

    (folder / "samples.jsonl").write_text(
        "\n".join([json.dumps(sealed(row, Run.read(folder).seal)), *text[1:], ""])
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (unfinished, "run1: is running, not finished"),
        (unscored, "4 of 4 samples have no score"),
        (damaged, r"samples\.jsonl:1: does not match its checksum"),
        (too_large, "run1: does not fit"),
    ],
)
def test_unfinished_and_damaged_runs_are_refused(results, spoil, reason):
    spoil(results / "run1")
    before = {path: path.read_bytes() for path in results.rglob("*.json*")}
    with pytest.raises(RecordError, match=f"1 runs cannot be archived:\n.*{reason}"):
        archive.write(results, results.parent / "all.parquet")
    assert [path.name for path in results.parent.iterdir()] == ["results"]
    assert before == {path: path.read_bytes() for path in results.rglob("*.json*")}


def test_nothing_is_overwritten(results, file, tmp_path):
    before = file.read_bytes()
    with pytest.raises(ValueError, match="is there already"):
        archive.write(results, file)
    assert file.read_bytes() == before
    with pytest.raises(ValueError, match="has no runs"):
        archive.write(tmp_path / "nothing", tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="must end in .parquet"):
        archive.write(results, tmp_path / "none.jsonl")


def changed(file, change):
    """The archive with its rows changed by somebody who knows Parquet, its metadata as they were."""
    table = pq.read_table(file)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)


def test_a_changed_answer_is_found_when_it_is_read(file):
    changed(file, lambda rows: rows[0].update(text="another"))
    (run0, run1), problems = find_runs(file)
    assert not problems and len(run1.samples()) == 4
    for read in (run0.samples, lambda: run0.scores(STRICT), lambda: run0.done, run0.traces):
        with pytest.raises(RecordError, match=r"both\.parquet/run0: does not match its checksum"):
            read()
    left_out = everything([run0, run1]).missing
    assert [name for name, _ in left_out] == ["run0"]


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.pop(-1),
        lambda rows: rows[-1].update(trace="{}"),
        lambda rows: rows[-1]["scores"][0].update(correct=0.5),
        lambda rows: rows[-1]["forwards"].reverse(),
    ],
)
def test_whatever_is_changed_is_found(file, change):
    changed(file, change)
    (_, run1), _ = find_runs(file)
    with pytest.raises(RecordError, match=r"both\.parquet/run1: does not match its checksum"):
        run1.samples()


def test_a_lost_run_is_found(file):
    changed(file, lambda rows: rows.__delitem__(slice(0, 4)))
    runs, (problem,) = find_runs(file)
    assert not runs and str(file) in problem and "not those of the runs that it names" in problem


def test_a_changed_run_json_is_found(file):
    changed(file, lambda rows: rows[0].update(run_json=rows[0]["run_json"].replace("0.1", "0.2", 1)))
    runs, (problem,) = find_runs(file)
    assert not runs and f"{file}/run0: does not match its checksum" in problem


def test_what_is_no_archive_is_named_and_hides_nothing(results):
    pd.DataFrame({"a": [1]}).to_parquet(results / "mine.parquet")
    (results / "empty.parquet").touch()
    (results / "folder.parquet").mkdir()
    runs, problems = find_runs(results)
    assert len(runs) == 2 and [problem.split(": ")[0] for problem in problems] == [
        str(results / name) for name in ("empty.parquet", "folder.parquet", "mine.parquet")
    ]
    assert archive.overrides_of(results) == []


def test_the_command(results, tmp_path):
    def call(*words):
        command = [sys.executable, "-m", "unmask.records.archive", *map(str, words)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = call(results, tmp_path / "a.parquet", "threads=1")
    assert done.returncode == 0 and "a.parquet: 2 runs, 0.0 MB" in done.stdout
    assert archive.overrides_of(tmp_path / "a.parquet") == ["threads=1"]
    again = call(results, tmp_path / "a.parquet")
    assert again.returncode == 2 and again.stderr.startswith("error: ") and "already" in again.stderr
    assert call(results).returncode != 0
