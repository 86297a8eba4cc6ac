"""Two runs against each other, on pairs small enough to count by hand."""

import pytest

from unmask.records import RecordError
from unmask.records.comparing import changed, check_same_prompts, compare


@pytest.fixture
def run(sample, score):
    """run([1, 0, ...], ...) -> a scored document for each value of `correct`; fields may be changed."""

    def make(correct, **changes):
        return [sample(i, **changes) | score(i, correct=value) for i, value in enumerate(correct)]

    return make


def test_mcnemar_is_the_binomial_of_the_documents_that_changed(run):
    result = compare(run([1] * 8 + [0] * 2), run([0] * 6 + [1] * 3 + [0]))
    assert (result["n"], result["improved"], result["worsened"]) == (10, 1, 6)
    assert result["accuracy_difference"] == pytest.approx(-0.5)
    # two-sided: as far from 3.5 of 7 as 1 is, that is 0, 1, 6 or 7 heads of 7
    assert result["p_value"] == pytest.approx((1 + 7 + 7 + 1) / 2**7)
    same = compare(run([1, 0]), run([1, 0]))
    assert same["p_value"] == 1 and same["identical"] == 2


def test_ratios_are_of_sums_over_the_documents_of_both(run):
    slow, fast = run([1, 1, 1]), run([1, 1, 1, 1])
    for i, (one, other) in enumerate(zip(slow, fast, strict=False)):
        one |= {"useful": 2 + i, "forwards": {"denoiser": 2 + i}, "positions": {"denoiser": 30}}
        other |= {"forwards": {"target": 1, "drafter": 9}, "positions": {"target": 5, "drafter": 25}}
    fast[3]["useful"] = 1000  # the other run has no such document
    result = compare(slow, fast)
    # 9 useful tokens in 9 steps, 90 positions; 6 in 3 steps, 90 positions
    assert result["n"] == 3
    assert result["tokens_per_step_ratio"] == pytest.approx(2)
    assert result["tokens_per_step_ratio_interval"] == pytest.approx([2, 2])
    assert result["positions_ratio"] == pytest.approx(1.5)
    low, high = result["positions_ratio_interval"]
    assert 1 <= low < 1.5 < high <= 2  # of three times the first document, or the last
    silent = compare(run([0, 0], useful=0), run([0, 0]))
    assert silent["tokens_per_step_ratio"] is silent["positions_ratio_interval"] is None


def test_answers_are_the_same_by_their_useful_ids(run):
    first = run([1, 1, 1])
    second = [row | {"ids": [5, 6, 2, 2]} for row in first]  # after the end
    second[2] = second[2] | {"ids": [5, 5, 2, 2]}
    assert compare(first, second)["identical"] == 2
    second[1] = second[1] | {"useful": 1}
    assert compare(first, second)["identical"] == 1


def test_answers_that_changed_come_in_pairs(run):
    better, worse = changed(run([1, 0, None, 0]), run([0, 1, 1, 0, 1]))
    assert [(first["doc_id"], second["correct"]) for first, second in better] == [(1, 1)]
    assert [(first["doc_id"], second["correct"]) for first, second in worse] == [(0, 0)]


def test_what_was_asked_otherwise_is_no_pair(run):
    first, second = run([1, 0, 1]), run([1, 1])
    check_same_prompts(first, second)
    second[1]["prompt_hash"] = "cd"
    with pytest.raises(RecordError, match=r"prompts of 1 of 2 common documents differ \(1\)"):
        check_same_prompts(first, second)
