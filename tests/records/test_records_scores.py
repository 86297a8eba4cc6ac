"""Scores: one metric, one accuracy; what is scored can be read, whatever became of the run since."""

import pytest

from unmask.records import RecordError, Run

CONFIG = {"models": {"denoiser": {"name": "tiny"}}}
STRICT, LENIENT = "exact_match,strict", "exact_match,lenient"


@pytest.fixture
def folder(tmp_path, sample):
    """A run of three documents, closed."""
    with Run.open(tmp_path / "run", CONFIG, {}) as run:
        for doc_id in (2, 0, 1):
            run.append(sample(doc_id))
    return run.folder


def resume(folder):
    run = Run.open(folder, CONFIG, {})
    run.claim()
    return run


def test_what_is_scored_can_be_read_whatever_the_status(folder, sample, score):
    with resume(folder) as run:
        run.write_scores([score(1)])  # interrupted, then scored at a smaller limit
        assert run.info["status"] == "running"
    assert [s["doc_id"] for s in Run.read(folder).scored(STRICT, {(1, 0)})] == [1]
    with resume(folder) as run:
        run.write_scores([score(i) for i in range(3)])
        run.update(status="finished")
    with resume(folder) as run:  # finished, and being extended
        run.append(sample(3))
        beside = Run.read(folder)
        assert beside.info["status"] == "running"
        assert len(beside.scored(STRICT, {(i, 0) for i in range(3)})) == 3
        with pytest.raises(RecordError, match="1 of 4 samples have no score"):
            beside.scored(STRICT)


def test_scores_are_joined_replaced_and_required(folder, sample, score):
    with resume(folder) as run:
        with pytest.raises(
            RecordError, match=rf"3 of 3 samples have no score by {STRICT}: \(0, 0\), \(1, 0\)"
        ):
            run.scored(STRICT)
        run.write_scores(score(doc_id, correct=0.0) for doc_id in range(3))
        run.write_scores([score(1, correct=1.0)])
        assert [row["correct"] for row in run.scored(STRICT)] == [0.0, 1.0, 0.0]
        assert run.scored(STRICT)[1] == sample(1) | score(1)
        with pytest.raises(RecordError, match=r"1 of 2 documents are not there: \(9, 0\)"):
            run.scored(STRICT, {(0, 0), (9, 0)})
        with pytest.raises(RecordError, match="no samples for"):
            run.write_scores([score(9)])
        for bad in (score(0, correct=2), score(0) | {"text": "x"}, {"doc_id": 0}):
            with pytest.raises(RecordError, match="the new scores:1: "):
                run.write_scores([bad])
        run.append(sample(3))
        with pytest.raises(RecordError, match=r"1 of 4 samples have no score by .*: \(3, 0\)"):
            run.scored(STRICT)
    assert len((folder / "scores.jsonl").read_text().splitlines()) == 3


def test_metrics_live_side_by_side_and_never_mix(folder, score):
    with resume(folder) as run:
        run.write_scores(score(i, correct=0.0) for i in range(3))
        run.write_scores(score(i, correct=1.0, metric=LENIENT) for i in range(2))
        run.write_scores([score(0, correct=0.5)])
        assert run.metrics == [LENIENT, STRICT]
        assert [row["correct"] for row in run.scores(STRICT)] == [0.5, 0.0, 0.0]
        assert [row["correct"] for row in run.scores(LENIENT)] == [1.0, 1.0]
        assert {row["metric"] for row in run.scored(STRICT)} == {STRICT}
        with pytest.raises(RecordError, match=rf"1 of 3 samples have no score by {LENIENT}: \(2, 0\)"):
            run.scored(LENIENT)
        assert run.scores("unheard,of") == []


def test_the_score_of_an_answer_that_is_gone_is_not_given_to_the_next_one(folder, sample, score):
    with resume(folder) as run:
        run.write_scores(score(i) for i in range(3))
    path = folder / "samples.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))  # without document 2
    assert [row["doc_id"] for row in Run.read(folder).scores(STRICT)] == [0, 1]
    with resume(folder) as run:
        assert "dropped 1 scores" in run.notes[0]
        run.append(sample(2, ids=[5, 6, 2, 8]))
        with pytest.raises(RecordError, match=r"have no score by .*: \(2, 0\)"):
            run.scored(STRICT)


def test_damaged_scores_say_that_they_can_be_made_again(folder, score):
    with resume(folder) as run:
        run.write_scores(score(i) for i in range(3))
    path = folder / "scores.jsonl"
    whole = path.read_bytes()
    for damage in (whole[:-5], whole.replace(b"1.0", b"0.0", 1), whole + b"\0\n"):
        path.write_bytes(damage)
        with pytest.raises(RecordError, match=r"scores\.jsonl:.*Delete the file, it is derived: score again"):
            Run.read(folder).scored(STRICT)
    path.unlink()
    with resume(folder) as run:
        run.write_scores(score(i) for i in range(3))
    assert path.read_bytes() == whole
