"""What a sample and a score must be to be written at all."""

import pytest

from unmask.records import RecordError, check_sample, check_score


def test_the_example_is_a_sample(sample, score):
    check_sample(sample())
    check_score(score())


def test_an_answer_may_be_empty_and_may_fill_its_budget(sample):
    nothing = {"ids": [], "commits": [], "useful": 0, "finish": "length"}
    check_sample(sample(**nothing, forwards={"target": 0}, positions={"target": 0}))
    check_sample(sample(ids=[1] * 8, commits=[0] * 8, useful=8, finish="length"))
    check_sample(sample(ids=[1] * 8, commits=[0] * 8, useful=7))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ids": [5, 6, 2]}, "commits has 4 committed positions but there are 3 ids"),
        ({"commits": [0, 1, 1, 0, -1]}, "commits ends with an open position"),
        (
            {"commits": [0, 1, 1, -1, 3]},
            "step 3 committed a token, but the steps are the 3 forwards of denoiser",
        ),
        ({"commits": [0, -1, 1, 1, 0]}, "leaves one of the first 3 open"),
        ({"commits": [0, 1, -1, 1, 0]}, "leaves one of the first 3 open"),
        ({"commits": [0, 1, 1, -2, 0]}, "commits must be"),
        ({"commits": [0, 1, 1]}, "ids 4 <= commits 3"),
        ({"useful": 5}, "useful 5 <= ids 4"),
        ({"max_new_tokens": 4}, "commits 5 <= max_new_tokens 4 does not hold"),
        ({"finish": "length"}, "finish is 'length' with 2 useful of 4"),
        ({"useful": 4}, "finish is 'stop' with 4 useful of 4"),
        ({"finish": "eos"}, "finish must be 'stop' or 'length'"),
        ({"forwards": {"denoiser": -1}}, "forwards must be"),
        ({"forwards": {}}, "forwards must be"),
        ({"forwards": {"denoiser": 25, "auxiliary": 1}}, "every forward feeds at least one position"),
        ({"forwards": {"denoiser": 3}}, "the same roles in the same order"),
        ({"positions": {"auxiliary": 4, "denoiser": 24}}, "the same roles in the same order"),
        ({"ids": [1, 2, 3, 4.0]}, "ids must be"),
        ({"ids": [1, 2, 3, -4]}, "ids must be"),
        ({"useful": True}, "useful must be"),
        ({"prompt_length": -1}, "prompt_length must be"),
        ({"batch": None}, "batch must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"seconds": float("nan")}, "seconds must be"),
        ({"seconds": 0}, "seconds must be"),
        ({"exact": 1}, "exact must be"),
        ({"commit": "abc"}, "commit must be"),
        ({"commit": "0123456789ab++"}, "commit must be"),
        ({"session": ""}, "session must be"),
        ({"machine": ""}, "machine must be"),
        ({"surprise": 1}, r"unknown fields \['surprise'\]"),
        ({"checksum": "01234567"}, "unknown fields"),
    ],
)
def test_a_sample_that_contradicts_itself_is_refused_by_document(sample, changes, complaint):
    with pytest.raises(RecordError, match=f"document 41, repeat 0: .*{complaint}"):
        check_sample(sample(41) | changes)


@pytest.mark.parametrize("field", ["commits", "batch", "machine", "commit", "exact", "prompt_length"])
def test_no_field_may_be_missing(sample, field):
    with pytest.raises(RecordError, match=rf"missing or unknown fields \['{field}'\]"):
        check_sample({key: value for key, value in sample().items() if key != field})


@pytest.mark.parametrize(
    "changes",
    [
        {"commit": None},
        {"commit": "0123456789ab+"},
        {"commit": "0123456789ab+c0ffee"},
        {"exact": True},
        {"seconds": None},
    ],
)
def test_what_is_not_known_may_be_left_open(sample, changes):
    check_sample(sample(**changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"correct": 2}, "from 0 to 1"),
        ({"correct": float("nan")}, "from 0 to 1"),
        ({"correct": True}, "from 0 to 1"),
        ({"correct": "yes"}, "from 0 to 1"),
        ({"metric": ""}, "metric must name"),
        ({"metric": None}, "metric must name"),
        ({"extraction_failed": 0}, "extraction_failed must be a bool"),
        ({"extracted": 4}, "extracted must be a string"),
        ({"doc_id": -1}, "doc_id must be"),
        ({"text": "x"}, r"unknown fields \['text'\]"),
    ],
)
def test_a_score_has_its_form(score, changes, complaint):
    with pytest.raises(RecordError, match=complaint):
        check_score(score() | changes)
    with pytest.raises(RecordError, match=r"missing or unknown fields \['metric'\]"):
        check_score({key: value for key, value in score().items() if key != "metric"})


def test_an_answer_may_be_beyond_scoring(score):
    check_score(score(correct=None) | {"extracted": None, "target": None})
