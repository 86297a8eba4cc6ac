"""Damaged files: what is read is what was written, or a RecordError says which file and line."""

import json
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unmask.records import RecordError, Run, config_hash, find_runs
from unmask.records.files import sealed
from unmask.records.kept import Kept
from unmask.records.reading import RUN, SAMPLES, SCORES, read_samples

CONFIG = {"models": {"denoiser": {"name": "tiny"}}, "decoder": {"name": "apd", "mixture_weight": 0.7}}
SEAL = config_hash(CONFIG)
PROPERTY = settings(
    deadline=None,
    derandomize=True,
    max_examples=150,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def contents(folder):
    run = Run.read(folder)
    return run.info, run.samples(), [row for metric in run.metrics for row in run.scores(metric)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, sample, score):
    """A finished run of four documents, scored by two metrics."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with Run.open(folder, CONFIG, {"documents": {"toy": 4}, "metric": "exact_match,strict"}) as run:
        for doc_id in range(4):
            run.append(sample(doc_id, ids=[17, 123 + doc_id, 2, 99], seconds=0.25 + doc_id / 7))
        for metric in ("exact_match,strict", "exact_match,lenient"):
            run.write_scores([score(i, correct=float(i < 3), metric=metric) for i in range(4)])
        run.update(status="finished", summary={"accuracy": 0.75})
    return folder


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "run"


def damaged_copy(whole, scratch, name, damage):
    """A copy of the run with one file's bytes replaced by damage(bytes)."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(whole, scratch)
    (scratch / name).write_bytes(damage((whole / name).read_bytes()))


def flip(place, value):
    return lambda text: text[: place % len(text)] + bytes([value]) + text[place % len(text) + 1 :]


def truncate(place):
    return lambda text: text[: place % len(text)]


def delete_line(number):
    def damage(text):
        lines = text.splitlines(keepends=True)
        del lines[number % len(lines)]
        return b"".join(lines)

    return damage


PLACES = st.integers(0, 10**6)
DAMAGES = st.one_of(
    st.tuples(st.just("flip"), st.builds(flip, PLACES, st.integers(0, 255))),
    st.tuples(st.just("truncate"), st.builds(truncate, PLACES)),
    st.tuples(st.just("delete"), st.builds(delete_line, PLACES)),
)


@PROPERTY
@given(name=st.sampled_from([SAMPLES, SCORES, RUN]), damage=DAMAGES)
def test_damage_is_found_or_costs_whole_lines_and_nothing_else(whole, scratch, name, damage):
    kind, change = damage
    info, samples, scores = contents(whole)
    damaged_copy(whole, scratch, name, change)
    try:
        found_info, found_samples, found_scores = contents(scratch)
    except RecordError as error:
        assert str(scratch / name) in str(error)
        _, problems = find_runs(scratch.parent)
        assert problems == [str(error)] or name == SCORES
        with pytest.raises(RecordError), Run.open(scratch, CONFIG, {}) as run:
            run.claim()
        return
    assert found_info == info
    assert all(row in samples for row in found_samples)
    assert all(row in scores for row in found_scores)
    if kind == "flip":  # at worst the last line is not told from one that an interrupted write tore
        assert found_samples == samples[: len(found_samples)] and len(found_samples) >= len(samples) - 2
    if name != SAMPLES:
        assert found_samples == samples
    if name != SCORES or kind == "flip":
        held = {row["doc_id"] for row in found_samples}
        assert found_scores == [row for row in scores if row["doc_id"] in held]
    with Run.open(scratch, CONFIG, {}) as run:
        run.claim()
        assert run.samples() == found_samples
    assert contents(scratch)[1:] == (found_samples, found_scores)


def test_every_flipped_bit_of_a_line_is_noticed(whole, scratch):
    damaged_copy(whole, scratch, SAMPLES, lambda text: text)
    path = scratch / SAMPLES
    text = path.read_bytes()
    original, _ = read_samples(path, SEAL)
    first = text.index(b"\n") + 1
    with path.open("r+b", buffering=0) as file:
        for place in range(first, text.index(b"\n", first)):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([text[place] ^ 1 << bit]), place)
                try:
                    found, _ = read_samples(path, SEAL)
                except RecordError as error:
                    assert f"{path}:2: " in str(error)
                else:  # "\u00fc" as "\u00FC", or the 17th digit of a number: the same content
                    assert found == original, (place, bit)
            os.pwrite(file.fileno(), text[place : place + 1], place)
    assert path.read_bytes() == text


@pytest.mark.parametrize("name", [SAMPLES, SCORES])
def test_a_row_without_a_checksum_is_refused(whole, scratch, name):
    damaged_copy(whole, scratch, name, lambda text: text.replace(b', "checksum"', b', "cheksum"', 1))
    with pytest.raises(RecordError, match=rf"{name}:1: does not match its checksum"):
        contents(scratch)


def test_a_number_that_no_writer_writes_is_refused(whole, scratch):
    damaged_copy(whole, scratch, SAMPLES, lambda text: text.replace(b'"seed": 7', b'"seed": NaN', 1))
    with pytest.raises(RecordError, match=r"samples\.jsonl:1: does not match its checksum"):
        contents(scratch)


def test_a_file_that_is_none_is_a_record_error(whole, scratch):
    damaged_copy(whole, scratch, SCORES, lambda text: text)
    (scratch / SAMPLES).unlink()
    (scratch / SAMPLES).mkdir()
    with pytest.raises(RecordError, match=r"samples\.jsonl: cannot be read \(Is a directory\)"):
        Run.read(scratch)


def test_a_row_of_another_form_or_run_is_refused_where_rows_are_kept(tmp_path):
    def kept(of):
        return Kept(tmp_path / "kept.jsonl", lambda row: row["key"], of=of, check=lambda row: row["n"] > 0)

    first = kept("a")
    first.add({"key": 1, "n": 2})
    first.close()
    assert kept("a").rows == {1: {"key": 1, "n": 2}}
    with pytest.raises(RecordError, match=r"kept\.jsonl:1: does not match its checksum"):
        kept("b").rows  # noqa: B018
    for row in ({"key": 2, "n": 0}, {"key": 2}, {"n": 1}, {"key": [], "n": 1}, {"key": 2, "n": "x"}):
        (tmp_path / "kept.jsonl").write_text(json.dumps(sealed(row, "a")) + "\n")
        with pytest.raises(RecordError, match=r"kept\.jsonl:1: is a row of another form"):
            kept("a").rows  # noqa: B018
