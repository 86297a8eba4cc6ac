"""The accounting on samples small enough to count by hand."""

import json

import pytest

from unmask.records import RecordError
from unmask.records.summary import compare, summarise


def scored(doc_id, correct=1.0, *, useful, wasted, seconds, denoiser, auxiliary=0, failed=False):
    return {
        "doc_id": doc_id,
        "repeat": 0,
        "task": "toy",
        "ids": [9] * (useful + wasted),
        "useful": useful,
        "forwards": {"denoiser": denoiser, "auxiliary": auxiliary},
        "positions": {"denoiser": denoiser * 10, "auxiliary": auxiliary * 5},
        "seconds": seconds,
        "batch_size": 1,
        "correct": correct,
        "extraction_failed": failed,
    }


RUN = [
    scored(0, 1.0, useful=10, wasted=2, seconds=1.0, denoiser=5, auxiliary=3),
    scored(1, 0.0, useful=30, wasted=0, seconds=2.0, denoiser=10, auxiliary=7),
    scored(2, 0.0, useful=0, wasted=6, seconds=1.0, denoiser=1, failed=True),
    scored(3, 1.0, useful=40, wasted=4, seconds=4.0, denoiser=4),
]


def test_a_run_counted_by_hand():
    summary = summarise(RUN)
    intervals = {key: summary.pop(key) for key in list(summary) if key.endswith("_interval")}
    assert summary == {
        "n": 4,
        "samples": 4,
        "n_scored": 4,
        "accuracy": 0.5,
        "extraction_failures": 1,
        "useful_tokens": 80,
        "wasted_tokens": 12,
        "mean_generated_tokens": 23.0,
        "forwards": {"denoiser": 20, "auxiliary": 10},
        "positions": {"denoiser": 200, "auxiliary": 50},
        "step_role": "denoiser",
        "tokens_per_step": 4.0,
        "seconds": 8.0,
        "tokens_per_second": 10.0,
        "tokens_per_second_macro": (10 + 15 + 0 + 10) / 4,
        "latency_p50": 1.5,
        "latency_p90": pytest.approx(3.4),
    }
    assert intervals["accuracy_interval"] == pytest.approx([0.1500, 0.8500], abs=5e-5)
    low, high = intervals["tokens_per_step_interval"]
    assert 0 <= low < 4 < high <= 10
    low, high = intervals["tokens_per_second_interval"]
    assert 0 <= low < 10 < high <= 15
    json.dumps(summary | intervals, allow_nan=False)


def test_causal_models_step_with_their_only_role():
    causal = [
        scored(i, useful=10, wasted=1, seconds=1.0, denoiser=0)
        | {"forwards": {"autoregressive": 11}, "positions": {"autoregressive": 30}}
        for i in range(3)
    ]
    summary = summarise(causal)
    assert summary["step_role"] == "autoregressive"
    assert summary["tokens_per_step"] == pytest.approx(10 / 11)
    causal[0]["forwards"] = {"autoregressive": 11, "drafter": 2}
    with pytest.raises(RecordError, match="autoregressive.*drafter"):
        summarise(causal)


def test_a_role_that_never_ran_is_shown():
    assert summarise(RUN[2:3])["forwards"] == {"denoiser": 1, "auxiliary": 0}


def test_latency_is_for_batch_one():
    batched = [sample | {"batch_size": 4} for sample in RUN]
    assert summarise(batched)["latency_p50"] is summarise(batched)["latency_p90"] is None


def test_answers_that_cannot_be_scored_are_no_zeros():
    summary = summarise([RUN[0], RUN[3] | {"correct": None}])
    assert (summary["n"], summary["n_scored"], summary["accuracy"]) == (2, 1, 1.0)
    summary = summarise([RUN[0] | {"correct": None}])
    assert summary["accuracy"] is summary["accuracy_interval"] is summary["tokens_per_step_interval"] is None
    json.dumps(summary, allow_nan=False)
    with pytest.raises(RecordError, match="no samples"):
        summarise([])


def test_repeats_are_no_new_documents():
    again = [sample | {"repeat": 1, "correct": 1.0} for sample in RUN]
    once, twice = summarise(RUN), summarise(RUN + again)
    assert (twice["n"], twice["samples"], twice["accuracy"]) == (4, 8, 0.75)
    assert twice["tokens_per_second_interval"] == pytest.approx(once["tokens_per_second_interval"])
    assert twice["useful_tokens"] == 160


def test_comparison_pairs_common_documents():
    other = [
        scored(3, 1.0, useful=40, wasted=0, seconds=2.0, denoiser=4),
        scored(1, 1.0, useful=30, wasted=0, seconds=1.0, denoiser=9),
        scored(0, 1.0, useful=10, wasted=0, seconds=0.5, denoiser=9),
        scored(7, 0.0, useful=99, wasted=0, seconds=9.0, denoiser=9),
    ]
    result = compare(RUN, other)
    assert (result["n"], result["n_scored"], result["improved"], result["worsened"]) == (3, 3, 1, 0)
    assert result["accuracy_difference"] == pytest.approx(1 / 3)
    # of the 27 draws 8 hold no change and 1 holds nothing else
    assert result["accuracy_difference_interval"] == pytest.approx([0, 1])
    assert result["p_value"] == 1.0
    assert result["speedup"] == pytest.approx(2) and result["speedup_interval"] == pytest.approx([2, 2])
    json.dumps(result, allow_nan=False)


def test_comparison_leaves_unscorable_pairs_out_of_accuracy_only():
    result = compare(RUN, [sample | {"correct": None} for sample in RUN])
    assert (result["n"], result["n_scored"], result["accuracy_difference"]) == (4, 0, None)
    assert result["speedup"] == pytest.approx(1)
    silent = compare(RUN[2:3], RUN[2:3])
    assert silent["speedup"] is silent["speedup_interval"] is None


def test_comparison_refuses_what_cannot_be_paired():
    with pytest.raises(RecordError, match="different tasks"):
        compare(RUN, [sample | {"task": "other"} for sample in RUN])
    with pytest.raises(RecordError, match="in common"):
        compare(RUN[:1], RUN[1:2])
