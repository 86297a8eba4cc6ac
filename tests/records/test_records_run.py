"""The run folder under the accidents it is built for: kills, torn lines, a second process, another config."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unmask.records import RecordError, Run, config_hash, find_runs
from unmask.records.files import append_line, sealed

ROOT = Path(__file__).parents[2]
CONFIG = {"models": {"denoiser": {"name": "tiny"}}, "decoder": {"name": "apd", "mixture_weight": 0.7}}
SEAL = config_hash(CONFIG)
STRICT, LENIENT = "exact_match,strict", "exact_match,lenient"


@pytest.fixture
def folder(tmp_path, sample):
    """A run of three documents, closed."""
    with Run.open(tmp_path / "run", CONFIG, {"device": "cpu"}) as run:
        for doc_id in (2, 0, 1):
            run.append(sample(doc_id))
    return run.folder


def resume(folder, config=CONFIG, **meta):
    run = Run.open(folder, config, {"device": "cpu"} | meta)
    run.claim()
    return run


def add_line(folder, row, name="samples.jsonl"):
    with (folder / name).open("a") as file:
        file.write(json.dumps(row) + "\n")


WRITER = """
import json, sys
from pathlib import Path
from unmask.records import Run
folder, config, sample = sys.argv[1:]
run = Run.open(Path(folder), json.loads(config), {})
for doc_id in range(10_000):
    if (doc_id, 0) not in run.done:
        run.append(json.loads(sample) | {"doc_id": doc_id, "text": "x" * 50_000})
"""


@pytest.fixture
def start_writer(sample):
    """start_writer(folder) -> a process that appends documents for ever."""

    def start(folder):
        arguments = [str(folder), json.dumps(CONFIG), json.dumps(sample())]
        return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], cwd=ROOT)

    return start


def wait_for_bytes(path, size):
    deadline = time.monotonic() + 20
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline, "the writer wrote nothing"
        time.sleep(0.002)


def test_killed_runs_are_finished_without_loss_or_repetition(tmp_path, start_writer, sample):
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


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path, start_writer):
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


def test_two_runs_opened_on_a_new_folder_cannot_both_write(tmp_path, sample):
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


def test_a_run_that_writes_nothing_leaves_nothing(tmp_path, sample):
    with Run.open(tmp_path / "a" / "run", CONFIG, {}) as run:
        with pytest.raises(RecordError):
            run.append(sample(useful=9))
        with pytest.raises(RecordError):
            run.write_scores([{"doc_id": 0}])
    assert not list(tmp_path.iterdir())


def test_samples_come_back_in_order_and_as_written(folder, sample):
    with resume(folder) as run:
        assert run.samples() == [sample(0), sample(1), sample(2)]
        assert list(run.samples()[0]["forwards"]) == ["denoiser", "auxiliary"], (
            "the first role is the step role"
        )
        with pytest.raises(RecordError, match="already there"):
            run.append(sample(1))


def test_a_line_carries_the_checksum_of_the_rest(folder, sample):
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert lines == [sealed(sample(doc_id), SEAL) for doc_id in (2, 0, 1)]
    assert sealed({"a": 1})["checksum"] == "015abd7f", "as any other program would compute it"


TORN = b'{"doc_id": 3, "rep'


@pytest.mark.parametrize("tail", [TORN, None, b"\0" * 5000, b"\0\0\n", TORN + b"\0\0\n"])
def test_a_line_that_an_interrupted_write_tore_is_cut_off_and_noted(folder, sample, tail, caplog):
    tail = json.dumps(sealed(sample(3), SEAL)).encode() if tail is None else tail  # whole but for its newline
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


@pytest.mark.parametrize("place", [1, 3])
@pytest.mark.parametrize("line", [b"{]\n", b"\xff{\n", b"\n", b"[1]\n", b"[" * 100_000 + b"\n"])
def test_any_other_damaged_line_stops_with_its_place(folder, line, place):
    path = folder / "samples.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:place], line, *lines[place:]]))
    before = path.read_bytes()
    for attempt in (resume, Run.read):
        with pytest.raises(RecordError, match=rf"samples\.jsonl:{place + 1}: .*Delete the line"):
            attempt(folder)
    assert path.read_bytes() == before


def test_a_repeated_line_counts_once_and_a_contradicting_one_stops(folder, sample):
    path = folder / "samples.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines(keepends=True)[0])
    assert len(Run.read(folder).samples()) == 3
    path.write_bytes(whole)
    add_line(folder, sealed(sample(0, seconds=9.0), SEAL))
    with pytest.raises(RecordError, match=r"samples\.jsonl:4: contradicts line 2"):
        Run.read(folder)


def test_a_sample_on_disk_that_breaks_a_rule_stops_with_its_place(folder, sample):
    add_line(folder, sealed(sample(3, ids=[1]), SEAL))
    with pytest.raises(RecordError, match=r"samples\.jsonl:4: document 3, repeat 0: useful 2 <= ids 1"):
        resume(folder)


def test_a_changed_sample_stops_with_its_place(folder, sample):
    add_line(folder, sealed(sample(3), SEAL) | {"seed": 8})
    with pytest.raises(RecordError, match=r"samples\.jsonl:4: does not match its checksum.*Delete the line"):
        resume(folder)


@pytest.mark.parametrize("name", ["samples.jsonl", "scores.jsonl", "trace.jsonl"])
def test_rows_of_another_run_are_refused(folder, tmp_path, sample, score, name):
    """A file, or a line, that was copied into the wrong folder has the right form and the wrong numbers."""
    other = CONFIG | {"decoder": {"name": "apd", "mixture_weight": 0.1}}
    steps = {"drafted": [[]], "accepted": [0], "blocks": [""], "forwards": {"denoiser": [3]}}
    for at, config in ((folder, CONFIG), (tmp_path / "other", other)):
        with Run.open(at, config, {"device": "cpu"}) as run:
            if not run.done:
                run.append(sample(0, text="worse"))
            run.write_scores([score(0)])
            run.write_traces([{"doc_id": 0, "repeat": 0, "question": None, **steps}])
    shutil.copy(tmp_path / "other" / name, folder / name)
    with pytest.raises(RecordError, match=rf"{name}:1: does not match its checksum.*or is another run's"):
        run = Run.read(folder)
        assert run.every_score() and run.traces()


def test_an_older_run_whose_rows_are_sealed_with_nothing_is_read_and_goes_on(folder, sample):
    info = json.loads((folder / "run.json").read_text())
    info = {key: value for key, value in info.items() if key not in ("seal", "checksum")}
    (folder / "run.json").write_text(json.dumps(sealed(info)))
    (folder / "samples.jsonl").write_text(json.dumps(sealed(sample(0))) + "\n")
    with resume(folder) as run:
        run.append(sample(1))
    assert (folder / "samples.jsonl").read_text().splitlines()[1] == json.dumps(sealed(sample(1)))
    assert len(Run.read(folder).samples()) == 2


def test_a_lost_line_is_missed_where_all_answers_are_meant(folder, score):
    with resume(folder) as run:
        run.write_scores(map(score, range(3)))
        run.update(status="finished", summary={"samples": 3})
    (folder / "samples.jsonl").write_text("".join((folder / "samples.jsonl").open().readlines()[1:]))
    run = Run.read(folder)
    with pytest.raises(
        RecordError, match=r"samples\.jsonl: holds 2 of the 3 answers that its summary counts"
    ):
        run.scored(STRICT)
    assert len(run.scored(STRICT, {(0, 0)})) == 1


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
        with pytest.raises(OSError, match="No space left"):
            append_line(FullDisk(file), b"second\n")
        append_line(file, b"third\n")
    assert path.read_bytes() == b"first\nthird\n"


def test_another_config_is_refused_by_the_keys_that_differ(folder):
    other = CONFIG | {"decoder": {"name": "apd", "mixture_weight": 0.5, "kv_window": 16}}
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RecordError) as error:
        resume(folder, other)
    message = str(error.value)
    assert "choose another `run_folder`" in message
    assert "decoder.mixture_weight: 0.7 there, 0.5 here" in message
    assert 'decoder.kv_window: "(absent)" there, 16 here' in message
    assert "models" not in message.split("`run_folder`")[1]
    assert before == {path: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_that_is_no_run_is_refused_and_untouched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecordError, match="notes.txt"):
        Run.open(tmp_path, CONFIG, {})
    with pytest.raises(RecordError, match="not a folder"):
        Run.open(tmp_path / "notes.txt", CONFIG, {})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_killed_before_its_run_json_starts_again(tmp_path, sample):
    (tmp_path / "samples.jsonl").touch()
    (tmp_path / ".run.json.tmp").write_text("{")
    with Run.open(tmp_path, CONFIG, {}) as run:
        run.append(sample(0))
    assert len(Run.read(tmp_path).samples()) == 1


@pytest.mark.parametrize("content", ["", '{"schema": 2, "conf', "[]", '{"schema": 2}'])
def test_an_unreadable_run_json_is_named_and_the_samples_are_kept(folder, content):
    before = (folder / "samples.jsonl").read_bytes()
    (folder / "run.json").write_text(content)
    for attempt in (resume, Run.read):
        with pytest.raises(RecordError, match=r"run\.json: "):
            attempt(folder)
    assert (folder / "samples.jsonl").read_bytes() == before


def test_a_run_of_another_schema_says_how_to_bring_it_here(folder):
    (folder / "run.json").write_text('{"schema": 1, "config": {}}')
    with pytest.raises(RecordError, match=r"has schema 1, and this program reads 3.*run_folder"):
        Run.read(folder)


def test_a_changed_run_json_is_refused(folder):
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(info | {"status": "finished"}))
    with pytest.raises(RecordError, match=r"run\.json: does not match its checksum"):
        Run.read(folder)
    other = sealed({key: value for key, value in info.items() if key != "checksum"} | {"config": {}})
    (folder / "run.json").write_text(json.dumps(other))
    with pytest.raises(RecordError, match="config_hash is not that of its config"):
        Run.read(folder)


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


def test_run_json_carries_the_identity_and_what_changed_on_resume(folder, caplog):
    with caplog.at_level(logging.WARNING), resume(folder, device="cuda", time="later") as run:
        run.update(wall_seconds=3)
        with pytest.raises(RecordError, match="config"):
            run.update(config={})
    info = json.loads((folder / "run.json").read_text())
    assert info["config"] == CONFIG and info["config_hash"] == config_hash(CONFIG) and info["schema"] == 3
    assert (info["device"], info["status"], info["wall_seconds"]) == ("cpu", "running", 3)
    assert info["resumed"][0]["changed"] == {"device": "cuda"}
    assert 'device: "cpu" -> "cuda"' in caplog.text
    with pytest.raises(TypeError):
        resume(folder, device=object())
    with resume(folder, versions={"torch": "2"}) as run, Run.open(folder.parent / "new", CONFIG, {}) as new:
        assert run.info["resumed"][-1]["changed"] == {"versions.torch": "2"}
        assert new.info == {} and not new.folder.exists()


def test_another_metric_is_no_other_circumstance(folder):
    with resume(folder, metric=STRICT) as run:
        run.update(metric=STRICT)
    with resume(folder, metric=LENIENT, time="later") as run:
        assert run.info["resumed"][-1]["changed"] == {} and run.info["metric"] == STRICT


def test_a_run_goes_on_on_another_machine_and_commit(folder, sample, caplog):
    with caplog.at_level(logging.WARNING), resume(folder, machine="another", git_commit="f" * 40) as run:
        run.append(sample(3, machine="another", commit="f" * 12))
    assert (
        "resumed in other circumstances" in caplog.text
        and "their times only where settings took turns" in caplog.text
    )
    assert {s["machine"] for s in Run.read(folder).samples()} == {"another", sample()["machine"]}


def test_opening_a_run_writes_nothing_and_neither_does_saying_what_it_says_already(folder, score):
    scores = [score(i) for i in range(3)]
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


def test_find_runs_reads_only(folder, sample, tmp_path):
    (tmp_path / "empty").mkdir()
    with resume(folder) as writer:
        (run,), problems = find_runs(tmp_path)
        assert run.folder == folder and run.config == CONFIG and run.samples() == writer.samples()
        assert problems == []
        with pytest.raises(RecordError, match="Run.open"):
            run.append(sample(5))
    assert find_runs(tmp_path / "empty") == ([], [])


def test_one_damaged_folder_does_not_hide_the_others(folder, sample, tmp_path):
    def another(name):
        with Run.open(tmp_path / name, CONFIG, {}) as run:
            run.append(sample(0))
        return tmp_path / name

    (another("damaged") / "samples.jsonl").write_text("{]\n")
    (another("older") / "run.json").write_text('{"schema": 1}')
    (another("lost") / "run.json").unlink()
    another("whole")
    (tmp_path / "notes").mkdir()
    (tmp_path / "begins").mkdir()
    (tmp_path / "begins" / "samples.jsonl").touch()
    another("whole/nested")

    runs, problems = find_runs(tmp_path)
    assert [run.folder.name for run in runs] == ["run", "whole"]
    assert [problem.split(": ")[0].removeprefix(f"{tmp_path}/") for problem in problems] == [
        "damaged/samples.jsonl:1",
        "lost/run.json",
        "older/run.json",
    ]


def test_the_hash_is_of_the_config_and_nothing_else():
    assert config_hash({"a": 1, "b": {"c": 2}}) == config_hash({"b": {"c": 2}, "a": 1}) == "007f2c1c1045"
    assert len({config_hash({"a": value}) for value in (1, 1.0, True, "1", None, [1])}) == 6
    with pytest.raises(ValueError):
        config_hash({"a": float("nan")})
