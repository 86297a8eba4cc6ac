"""The run folder under the accidents it is built for: kills, torn lines, a second process, another config."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unmask.records import RecordError, Run, config_hash, environment, find_runs
from unmask.records.files import append_line

ROOT = Path(__file__).parents[2]
CONFIG = {"model": "tiny", "decoder": {"name": "apd", "mixture_weight": 0.7}}


def sample(doc_id=0, repeat=0, **changes):
    return {
        "doc_id": doc_id,
        "repeat": repeat,
        "task": "toy",
        "prompt_hash": "ab",
        "seed": 7,
        "ids": [5, 6, 2],
        "text": "ünï\u2028\n",
        "useful": 2,
        "finish": "stop",
        "steps": [2, 1],
        "forwards": {"denoiser": 2},
        "positions": {"denoiser": 16},
        "seconds": 0.5,
        "budget": 8,
        "batch_size": 1,
    } | changes


def score(doc_id=0, repeat=0, correct=1.0):
    return {"doc_id": doc_id, "repeat": repeat, "correct": correct, "extraction_failed": False}


@pytest.fixture
def folder(tmp_path):
    """A run of three documents, closed."""
    with Run.open(tmp_path / "run", CONFIG, {"device": "cpu"}) as run:
        for doc_id in (2, 0, 1):
            run.append(sample(doc_id))
    return run.folder


def resume(folder, config=CONFIG, **meta):
    run = Run.open(folder, config, {"device": "cpu"} | meta)
    run.claim()
    return run


WRITER = """
import sys, time
sys.path[:0] = sys.argv[2:4]
from pathlib import Path
from unmask.records import Run
from test_records_run import CONFIG, sample
run = Run.open(Path(sys.argv[1]), CONFIG, {})
for doc_id in range(10_000):
    if (doc_id, 0) not in run.done:
        run.append(sample(doc_id, text="x" * 50_000))
"""


def start_writer(folder):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(ROOT), str(Path(__file__).parent)]
    )


def wait_for_bytes(path, size):
    deadline = time.monotonic() + 20
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline, "the writer wrote nothing"
        time.sleep(0.002)


def test_killed_runs_are_finished_without_loss_or_repetition(tmp_path):
    folder, size = tmp_path / "run", 0
    for _ in range(3):
        writer = start_writer(folder)
        wait_for_bytes(folder / "samples.jsonl", size + 200_000)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        size = (folder / "samples.jsonl").stat().st_size
    lines = (folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
    whole = [json.loads(line)["doc_id"] for line in lines if line.endswith(b"\n")]

    with Run.open(folder, CONFIG, {}) as run:
        assert sorted(run.done) == [(doc_id, 0) for doc_id in whole], "every whole line is kept"
        wanted = range(len(whole) + 3)
        for doc_id in wanted:
            if (doc_id, 0) not in run.done:
                run.append(sample(doc_id))
    written = [json.loads(line)["doc_id"] for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert written == list(wanted)


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path):
    folder = tmp_path / "run"
    writer = start_writer(folder)
    try:
        wait_for_bytes(folder / "samples.jsonl", 1)
        with pytest.raises(RecordError, match=rf"another process \(pid {writer.pid}\) is writing"):
            Run.open(folder, CONFIG, {}).claim()
        assert Run.read(folder).samples(), "reading needs no lock"
    finally:
        writer.kill()
        writer.wait()


def test_two_runs_opened_on_a_new_folder_cannot_both_write(tmp_path):
    first, second = (Run.open(tmp_path / "run", CONFIG, {}) for _ in range(2))
    first.append(sample(0))
    with pytest.raises(RecordError, match=f"pid {os.getpid()}"):
        second.append(sample(0))
    first.close()
    with pytest.raises(RecordError, match="already there"):
        second.append(sample(0))
    second.append(sample(1))
    assert second.done == {(0, 0), (1, 0)}
    second.close()


def test_a_run_that_writes_nothing_leaves_nothing(tmp_path):
    with Run.open(tmp_path / "a" / "run", CONFIG, {}) as run:
        with pytest.raises(RecordError):
            run.append(sample(useful=9))
        with pytest.raises(RecordError):
            run.write_scores([{"doc_id": 0}])
    assert not list(tmp_path.iterdir())


def test_samples_come_back_in_order_and_as_written(folder):
    with resume(folder) as run:
        assert run.samples() == [sample(0), sample(1), sample(2)]
        with pytest.raises(RecordError, match="already there"):
            run.append(sample(1))


@pytest.mark.parametrize(
    "tail",
    [b'{"doc_id": 3, "rep', json.dumps(sample(3)).encode(), b"\0" * 5000, b"{]\n", b"\0\0\n", b"\xff\xfe{\n"],
)
def test_a_damaged_last_line_is_cut_off_and_noted(folder, tail, caplog):
    path = folder / "samples.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + tail)

    assert len(Run.read(folder).samples()) == 3
    assert path.read_bytes() == whole + tail, "reading repairs nothing"
    with resume(folder) as run, caplog.at_level(logging.WARNING):
        assert f"cut {len(tail)} bytes" in run.notes[0] and run.notes[0] in caplog.text
        run.append(sample(3))
    assert path.read_bytes().startswith(whole)
    assert len(Run.read(folder).samples()) == 4


@pytest.mark.parametrize("line", [b"{]\n", b"\0\0\n", b"\n", b"[1]\n"])
def test_a_damaged_middle_line_stops_with_its_place(folder, line):
    path = folder / "samples.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + line + lines[1])
    before = path.read_bytes()
    for attempt in (resume, Run.read):
        with pytest.raises(RecordError, match=r"samples\.jsonl:2: .*Delete the line"):
            attempt(folder)
    assert path.read_bytes() == before


def test_a_repeated_line_counts_once_and_a_contradicting_one_stops(folder):
    path = folder / "samples.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines(keepends=True)[0])
    assert len(Run.read(folder).samples()) == 3
    path.write_bytes(whole + json.dumps(sample(0, seconds=9.0)).encode() + b"\n")
    with pytest.raises(RecordError, match=r"samples\.jsonl:4: contradicts line 2"):
        Run.read(folder)


def test_a_sample_on_disk_that_breaks_a_rule_stops_with_its_place(folder):
    with (folder / "samples.jsonl").open("a") as file:
        file.write(json.dumps(sample(3, steps=[1])) + "\n")
    with pytest.raises(RecordError, match=r"samples\.jsonl:4: document 3, repeat 0: the steps commit 1"):
        resume(folder)


def test_a_failed_write_leaves_no_trace(tmp_path):
    class FullDisk:
        def __init__(self, file):
            self.file, self.name = file, file.name
            self.fileno, self.truncate = file.fileno, file.truncate

        def write(self, line):
            return self.file.write(line[:3])

    path = tmp_path / "lines"
    with path.open("ab", buffering=0) as file:
        append_line(file, b"first\n")
        with pytest.raises(OSError, match="disk full"):
            append_line(FullDisk(file), b"second\n")
        append_line(file, b"third\n")
    assert path.read_bytes() == b"first\nthird\n"


def test_another_config_is_refused_by_the_keys_that_differ(folder):
    other = {"model": "tiny", "decoder": {"name": "apd", "mixture_weight": 0.5, "kv_window": 16}}
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RecordError) as error:
        resume(folder, other)
    message = str(error.value)
    assert "choose another `output`" in message
    assert "decoder.mixture_weight: 0.7 there, 0.5 here" in message
    assert 'decoder.kv_window: "(absent)" there, 16 here' in message
    assert "model" not in message.split("`output`")[1]
    assert before == {path: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_that_is_no_run_is_refused_and_untouched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecordError, match="notes.txt"):
        Run.open(tmp_path, CONFIG, {})
    with pytest.raises(RecordError, match="not a folder"):
        Run.open(tmp_path / "notes.txt", CONFIG, {})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_killed_before_its_run_json_starts_again(tmp_path):
    (tmp_path / "samples.jsonl").touch()
    (tmp_path / ".run.json.tmp").write_text("{")
    with Run.open(tmp_path, CONFIG, {}) as run:
        run.append(sample(0))
    assert len(Run.read(tmp_path).samples()) == 1


@pytest.mark.parametrize("content", ["", '{"schema": 1, "conf', "[]", '{"schema": 99, "config": {}}'])
def test_an_unreadable_run_json_is_named_and_the_samples_are_kept(folder, content):
    before = (folder / "samples.jsonl").read_bytes()
    (folder / "run.json").write_text(content)
    for attempt in (resume, Run.read):
        with pytest.raises(RecordError, match=r"run\.json: "):
            attempt(folder)
    assert (folder / "samples.jsonl").read_bytes() == before


def test_run_json_is_replaced_whole_or_not_at_all(folder, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with resume(folder) as run:
        before = (folder / "run.json").read_bytes()
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, "replace", die)
            run.update(status="finished")
        with pytest.raises(TypeError):
            run.update(status=object())
        assert (folder / "run.json").read_bytes() == before
        run.update(status="finished")
    assert Run.read(folder).info["status"] == "finished"
    assert {path.name for path in folder.iterdir()} >= {"run.json", "samples.jsonl"}


def test_run_json_carries_the_recipe_and_what_changed_on_resume(folder, caplog):
    with caplog.at_level(logging.WARNING), resume(folder, device="cuda", time="later") as run:
        run.update(wall_seconds=3)
        with pytest.raises(RecordError, match="config"):
            run.update(config={})
    info = json.loads((folder / "run.json").read_text())
    assert info["config"] == CONFIG and info["config_hash"] == config_hash(CONFIG) and info["schema"] == 1
    assert (info["device"], info["status"], info["wall_seconds"]) == ("cpu", "running", 3)
    assert info["resumed"][0]["changed"] == {"device": "cuda"}
    assert 'device: "cpu" -> "cuda"' in caplog.text
    with pytest.raises(TypeError):
        resume(folder, device=object())
    with resume(folder, versions={"torch": "2"}) as run, Run.open(folder.parent / "new", CONFIG, {}) as new:
        assert run.info["resumed"][-1]["changed"] == {"versions.torch": "2"}
        assert new.info == {} and not new.folder.exists()


def test_opening_a_run_writes_nothing_and_neither_does_saying_what_it_says_already(folder):
    scores = [{"doc_id": i, "repeat": 0, "correct": 1.0, "extraction_failed": False} for i in range(3)]
    with resume(folder) as run:
        run.write_scores(scores)
        run.update(status="finished", summary={"n": 3})
    (folder / "samples.jsonl").open("ab").write(b"torn")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run = Run.open(folder, CONFIG, {"device": "cuda"})
    assert len(run.done) == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    run.write_scores(scores)
    run.update(status="finished", summary={"n": 3})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_scores_of_some_documents_can_be_asked_for(folder):
    with resume(folder) as run:
        run.write_scores([{"doc_id": 1, "repeat": 0, "correct": 1.0, "extraction_failed": False}])
        assert [s["doc_id"] for s in run.scored({(1, 0)})] == [1]
        with pytest.raises(RecordError, match="have no score"):
            run.scored()


def test_scores_are_joined_replaced_and_required(folder):
    with resume(folder) as run:
        with pytest.raises(RecordError, match="3 of 3 samples have no score"):
            run.scored()
        run.write_scores(score(doc_id, correct=0.0) for doc_id in range(3))
        run.write_scores([score(1, correct=1.0)])
        assert [row["correct"] for row in run.scored()] == [0.0, 1.0, 0.0]
        assert run.scored()[1] == sample(1) | score(1)
        with pytest.raises(RecordError, match="no samples for"):
            run.write_scores([score(9)])
        for bad in (score(0, correct=2), score(0) | {"text": "x"}, {"doc_id": 0}):
            with pytest.raises(RecordError, match="the new scores:1: "):
                run.write_scores([bad])
        run.append(sample(3))
        with pytest.raises(RecordError, match=r"1 of 4 samples have no score: \(3, 0\)"):
            run.scored()
    assert len((folder / "scores.jsonl").read_text().splitlines()) == 3


def test_find_runs_reads_only(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with resume(folder) as writer:
        (run,) = find_runs(tmp_path)
        assert run.folder == folder and run.config == CONFIG and run.samples() == writer.samples()
        with pytest.raises(RecordError, match="Run.open"):
            run.append(sample(5))
    assert find_runs(tmp_path / "empty") == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"steps": [1, 1]}, "the steps commit 2 tokens but there are 3 ids"),
        ({"useful": 4}, "useful 4 <= ids 3"),
        ({"budget": 2}, "budget 2 does not hold"),
        ({"forwards": {"denoiser": -1}}, "forwards must be"),
        ({"forwards": {}}, "forwards must be"),
        ({"forwards": {"denoiser": 17}}, "contradict"),
        ({"forwards": {"denoiser": 2, "auxiliary": 1}}, "contradict"),
        ({"finish": "length"}, "finish is 'length' with 2 useful of 3"),
        ({"finish": "eos"}, "finish must be 'stop' or 'length'"),
        ({"ids": [1, 2, 3.0]}, "ids must be"),
        ({"useful": True}, "useful must be"),
        ({"seconds": float("nan")}, "seconds must be"),
        ({"surprise": 1}, "unknown fields"),
    ],
)
def test_a_sample_that_contradicts_itself_is_refused_by_document(tmp_path, changes, complaint):
    with Run.open(tmp_path / "run", CONFIG, {}) as run, pytest.raises(RecordError) as error:
        run.append(sample(41) | changes)
    assert "document 41" in str(error.value) and complaint in str(error.value)


def test_the_hash_is_of_the_recipe_and_nothing_else():
    assert config_hash({"a": 1, "b": {"c": 2}}) == config_hash({"b": {"c": 2}, "a": 1}) == "007f2c1c1045"
    assert len({config_hash({"a": value}) for value in (1, 1.0, True, "1", None, [1])}) == 6
    with pytest.raises(ValueError):
        config_hash({"a": float("nan")})


def test_environment_is_plain_json_and_imports_no_framework():
    seen = environment()
    assert json.loads(json.dumps(seen)) == seen
    assert seen["time"].endswith("+00:00") and seen["cores"] >= 1 and seen["packages"]["python"]
    code = "import sys, records, records.summary; print({'torch', 'hydra', 'lm_eval'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "set()"
