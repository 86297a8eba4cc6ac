"""Files that change under a run that writes, and disks that refuse: said, and nothing on disk is lost."""

import errno
import os
import shutil

import pytest

from unmask.records import Run
from unmask.records import files as module
from unmask.records.reading import RUN, SAMPLES

CONFIG = {"decoder": {"name": "apd"}}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def run(folder, sample):
    with Run.open(folder, CONFIG, {}) as run:
        run.append(sample(0))
        run.append(sample(1))
        yield run


def ids(folder):
    return [sample["doc_id"] for sample in Run.read(folder).samples()]


def delete(folder):
    (folder / SAMPLES).unlink()


def cut(folder):
    lines = (folder / SAMPLES).read_bytes().splitlines(keepends=True)
    (folder / SAMPLES).write_bytes(lines[0])


def replace_by_a_part(folder):
    shutil.copy(folder / SAMPLES, folder / ".copy")
    lines = (folder / ".copy").read_bytes().splitlines(keepends=True)
    (folder / ".copy").write_bytes(lines[1])
    os.replace(folder / ".copy", folder / SAMPLES)


def move(folder):
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("change", "lost"), [(delete, "2 of 2"), (cut, "1 of 2"), (replace_by_a_part, "1 of 2"), (move, "2 of 2")]
)
@pytest.mark.parametrize("write", ["append", "update"])
def test_samples_that_go_away_under_a_writer_are_an_error(run, folder, sample, change, lost, write):
    change(folder)
    with pytest.raises(OSError, match=f"samples.jsonl: was deleted, moved or replaced .* {lost} documents"):
        run.append(sample(2)) if write == "append" else run.update(status="finished")
    if folder.exists():
        assert Run.read(folder).info["status"] == "running"
    else:
        assert ids(folder.with_name("elsewhere")) == [0, 1]


def test_a_copy_that_holds_every_document_is_gone_on_with(run, folder, sample):
    shutil.copy(folder / SAMPLES, folder / ".copy")
    os.replace(folder / ".copy", folder / SAMPLES)
    run.append(sample(2))
    assert ids(folder) == [0, 1, 2]
    assert any("was replaced" in note for note in run.notes)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_that_refuses_leaves_what_was_written(run, folder, sample, monkeypatch, code):
    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    info = (folder / RUN).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(module.os, "fsync", refuse)
        for write, name in ((lambda: run.append(sample(2)), SAMPLES), (lambda: run.update(status="x"), RUN)):
            with pytest.raises(OSError, match=os.strerror(code)) as caught:
                write()
            assert caught.value.filename == str(folder / name)
        assert ids(folder) == [0, 1] and (folder / RUN).read_bytes() == info
    run.append(sample(2))
    assert ids(folder) == [0, 1, 2], "a disk with room again"
