"""The accounting on samples small enough to count by hand."""

import json

import numpy as np
import pytest

from unmask.records import RecordError
from unmask.records.comparing import compare
from unmask.records.flops import flops_of, heads_of
from unmask.records.stats import unweighted_mean, wilson
from unmask.records.summary import summarise, times_void, turn_of

TIMES = [
    "seconds",
    "tokens_per_second",
    "tokens_per_second_interval",
    "tokens_per_second_macro",
    "seconds_per_token_unweighted",
    "latency_p50",
    "latency_p90",
]


def scored(doc_id, correct=1.0, *, useful, wasted=0, seconds=1.0, denoiser=1, auxiliary=0, failed=False):
    return {
        "doc_id": doc_id,
        "repeat": 0,
        "task": "toy",
        "metric": "exact_match,strict",
        "prompt_length": 10,
        "ids": [9] * (useful + wasted),
        "commits": [0] * (useful + wasted),
        "useful": useful,
        "forwards": {"denoiser": denoiser, "auxiliary": auxiliary},
        "positions": {"denoiser": denoiser * 10, "auxiliary": auxiliary * 5},
        "seconds": seconds,
        "max_new_tokens": 90,
        "batch_size": 1,
        "batch": doc_id,
        "exact": None,
        "session": "5e551011",
        "commit": "0123456789ab",
        "machine": "here",
        "correct": correct,
        "extraction_failed": failed,
    }


RUN = [
    scored(0, 1.0, useful=10, wasted=2, seconds=1.0, denoiser=5, auxiliary=3),
    scored(1, 0.0, useful=30, wasted=0, seconds=2.0, denoiser=10, auxiliary=7),
    scored(2, 0.0, useful=0, wasted=6, seconds=1.0, denoiser=1, failed=True),
    scored(3, 1.0, useful=40, wasted=4, seconds=4.0, denoiser=4),
]


def changed(run, **changes):
    return [sample | changes for sample in run]


def test_a_run_counted_by_hand():
    summary = summarise(RUN)
    intervals = {key: summary.pop(key) for key in list(summary) if key.endswith("_interval")}
    assert summary == {
        "metric": "exact_match,strict",
        "n": 4,
        "samples": 4,
        "n_scored": 4,
        "accuracy": 0.5,
        "accuracy_per_task": None,
        "accuracy_pooled": None,
        "extraction_failures": 1,
        "useful_tokens": 80,
        "wasted_tokens": 12,
        "mean_useful_tokens": 20.0,
        "leftmost_share": 1.0,
        "all_slots": 360,
        "non_eos_tokens": None,
        "retokenised_tokens": None,
        "acceptance_unweighted": None,
        "step_role": "denoiser",
        "forwards": {"denoiser": 20, "auxiliary": 10},
        "positions": {"denoiser": 200, "auxiliary": 50},
        "forwards_per_answer": {"denoiser": 5.0, "auxiliary": 2.5},
        "positions_per_answer": 62.5,
        "tokens_per_step": 4.0,
        "flops_per_useful_token": None,
        "exact": None,
        "sessions": ["5e551011"],
        "machines": ["here"],
        "commits": ["0123456789ab"],
        "times_void": None,
        "seconds": 8.0,
        "tokens_per_second": 10.0,
        "tokens_per_second_macro": (10 + 15 + 0 + 10) / 4,
        "seconds_per_token_unweighted": pytest.approx((1 / 11 + 2 / 30 + 1 / 1 + 4 / 41) / 4),
        "latency_p50": 1.5,
        "latency_p90": pytest.approx(3.4),
    }
    assert intervals["accuracy_interval"] == pytest.approx([0.1500, 0.8500], abs=5e-5)
    low, high = intervals["tokens_per_step_interval"]
    assert 0 <= low < 4 < high <= 10
    assert intervals["tokens_per_second_interval"] is None, "one turn tells no spread"
    json.dumps(summary | intervals, allow_nan=False)


def test_the_first_role_makes_the_steps():
    drafted = changed(RUN, forwards={"target": 4, "drafter": 9}, positions={"target": 4, "drafter": 9})
    summary = summarise(drafted)
    assert (summary["step_role"], summary["tokens_per_step"]) == ("target", 80 / 16)
    with pytest.raises(RecordError, match="different roles"):
        summarise([*drafted[:3], RUN[3]])


def test_a_role_that_never_ran_is_shown():
    assert summarise(RUN[2:3])["forwards"] == {"denoiser": 1, "auxiliary": 0}
    idle = summarise(changed(RUN, forwards={"denoiser": 0}, positions={"denoiser": 0}))
    assert idle["tokens_per_step"] is idle["tokens_per_step_interval"] is None


def test_latency_is_for_batch_one():
    batched = changed(RUN, batch_size=4)
    assert summarise(batched)["latency_p50"] is summarise(batched)["latency_p90"] is None
    assert summarise(batched)["tokens_per_second"] == 10


def test_answers_that_cannot_be_scored_are_no_zeros():
    summary = summarise([RUN[0], RUN[3] | {"correct": None}])
    assert (summary["n"], summary["n_scored"], summary["accuracy"]) == (2, 1, 1.0)
    summary = summarise([RUN[0] | {"correct": None}])
    assert summary["accuracy"] is summary["accuracy_interval"] is summary["tokens_per_step_interval"] is None
    json.dumps(summary, allow_nan=False)
    with pytest.raises(RecordError, match="no samples"):
        summarise([])


def test_metrics_are_never_averaged():
    other = RUN[3] | {"metric": "exact_match,lenient"}
    with pytest.raises(RecordError, match="correct by exact_match,lenient and by exact_match,strict"):
        summarise([*RUN[:3], other])
    with pytest.raises(RecordError, match="take the rows of one metric"):
        compare(RUN, changed(RUN, metric="exact_match,lenient"))


def test_repeats_are_no_new_documents():
    again = [sample | {"repeat": 1, "correct": 1.0, "batch": 4 + sample["batch"]} for sample in RUN]
    alone, again = changed(RUN, session=None), changed(again, session=None)
    once, twice = summarise(alone), summarise(alone + again)
    assert (twice["n"], twice["samples"], twice["accuracy"]) == (4, 8, 0.75)
    assert twice["tokens_per_second_interval"] == pytest.approx(once["tokens_per_second_interval"])
    assert (twice["useful_tokens"], twice["mean_useful_tokens"]) == (160, 20)


# Several tasks

GROUP = [
    *(scored(i, float(i < 3), useful=10) | {"task": "algebra"} for i in range(4)),
    *(scored(100_000 + i, float(i < 1), useful=10) | {"task": "geometry"} for i in range(12)),
]


def test_a_group_is_the_unweighted_mean_of_its_tasks():
    summary = summarise(GROUP)
    assert summary["accuracy"] == pytest.approx((3 / 4 + 1 / 12) / 2)
    assert summary["accuracy_pooled"] == pytest.approx(4 / 16)
    assert summary["accuracy_per_task"] == {"algebra": 0.75, "geometry": pytest.approx(1 / 12)}
    assert summary["accuracy_interval"] == pytest.approx(list(unweighted_mean([3, 1], [4, 12])[1:]))
    single = summarise(GROUP[:4])
    assert single["accuracy_interval"] == pytest.approx(list(wilson(3, 4)[1:]))


def test_a_group_without_one_of_its_tasks_has_no_mean():
    blind = [*changed(GROUP[:4], correct=None), *GROUP[4:]]
    summary = summarise(blind)
    assert summary["accuracy"] is summary["accuracy_interval"] is None
    assert summary["accuracy_per_task"] == {"algebra": None, "geometry": pytest.approx(1 / 12)}
    assert summary["accuracy_pooled"] == pytest.approx(1 / 12)
    change = compare(GROUP, blind)
    assert change["accuracy_difference"] is change["accuracy_difference_interval"] is None
    assert (change["n_scored"], change["improved"], change["worsened"]) == (12, 0, 0)


def test_differences_of_a_group_are_those_of_its_tasks_averaged():
    better = [sample | {"correct": 1.0} for sample in GROUP[:4]] + GROUP[4:]
    change = compare(GROUP, better)
    assert change["accuracy_difference"] == pytest.approx((1 / 4 + 0) / 2)
    low, high = change["accuracy_difference_interval"]
    assert low == 0 and 0.125 < high <= 0.5
    assert (change["improved"], change["worsened"]) == (1, 0)


# Times

VOIDS = [
    ({"machine": "there", "session": None}, "documents of 2 machines"),
    ({"commit": "ba9876543210", "session": None}, "documents of 2 commits"),
    ({"commit": None, "session": None}, "documents of 2 commits"),
    ({"batch_size": 2}, "documents of 2 batch sizes"),
    ({"seconds": None}, "1 of 4 answers have no comparable time"),
]


@pytest.mark.parametrize(("changes", "why"), VOIDS)
def test_times_that_do_not_make_one_measurement_are_void_and_answers_stay(changes, why):
    mixed = [*RUN[:3], RUN[3] | changes]
    summary, whole = summarise(mixed), summarise(RUN)
    assert summary["times_void"] == why == times_void(mixed)
    assert all(summary[name] is None for name in TIMES)
    kept = whole.keys() - TIMES - {"times_void", "machines", "commits", "sessions"}
    assert {key: summary[key] for key in kept} == {key: whole[key] for key in kept}
    assert summary["machines"] == sorted({"here", changes.get("machine", "here")})
    assert summary["commits"] == sorted({"0123456789ab", changes.get("commit", "0123456789ab") or "unknown"})
    for pair in ((mixed, RUN), (RUN, mixed)):
        change = compare(*pair)
        assert change["speedup"] is change["speedup_interval"] is None
        assert why in change["speedup_void"] and change["accuracy_difference"] == 0


def test_runs_of_two_machines_or_commits_have_no_speedup():
    change = compare(RUN, changed(RUN, machine="there", session="ffffffff"))
    assert change["speedup"] is None and change["speedup_void"] == "different machines: here and there"
    change = compare(RUN, changed(RUN, commit="ba9876543210", session="ffffffff"))
    assert change["speedup"] is None and change["speedup_void"].startswith("different commits: ")


def test_runs_that_answered_in_other_turns_have_no_speedup():
    first, second = changed(RUN, session="0a1b2c3d"), changed(RUN, session="ffffffff")
    assert compare(first, first)["speedup"] == 1
    alone = changed(RUN, session=None)
    for pair in ((first, second), (alone, first), (alone, alone)):
        assert compare(*pair)["speedup_void"] == "they did not answer in turns"
        assert compare(*pair, in_turns=False)["speedup"] == 1  # as on a GPU


def test_settings_that_took_turns_on_two_machines_compare():
    """The second half of the documents elsewhere: each half is a session of its own."""
    first, second = (
        [*changed(half[:2], session="0a1b2c3d"), *elsewhere]
        for half, elsewhere in (
            (RUN, changed(RUN[2:], session="ffffffff", machine="there")),
            (RUN, changed(RUN[2:], session="ffffffff", machine="there", seconds=0.1)),
        )
    )
    assert summarise(first)["times_void"] is None
    assert compare(first, second)["speedup"] > 1
    assert compare(first, RUN)["speedup_void"]
    shifted = [*first[:1], first[1] | {"session": "ffffffff", "machine": "there"}, *first[2:]]
    assert compare(first, shifted)["speedup_void"]  # the same sessions, another share of each
    assert summarise(first)["sessions"] != summarise(shifted)["sessions"] == ["0a1b2c3d x1", "ffffffff x3"]


def in_batches(size, batch, slow=3.0):
    """Documents of equal work; every other batch is slow."""
    return [
        scored(i, useful=10, seconds=slow if i // batch % 2 else 1.0)
        | {"batch_size": batch, "batch": i // batch * batch}
        for i in range(size)
    ]


def test_documents_of_a_batch_are_resampled_together():
    batched = in_batches(32, batch=16)
    apart = [sample | {"batch": sample["doc_id"], "session": None} for sample in batched]
    assert summarise(batched)["tokens_per_second"] == summarise(apart)["tokens_per_second"] == 5
    assert summarise(batched)["tokens_per_second_interval"] == pytest.approx([10 / 3, 10])
    low, high = summarise(apart)["tokens_per_second_interval"]
    assert 4 < low < 5 < high < 7
    steps = [summarise(run)["tokens_per_step_interval"] for run in (batched, apart)]
    assert steps[0] == steps[1], "steps are a row's own"
    assert summarise(batched[:16])["tokens_per_second_interval"] is None, "one clock tells no spread"


def test_speedups_resample_batches_that_overlap_together():
    fast = [sample | {"seconds": 1.0} for sample in in_batches(32, batch=16)]
    slow = in_batches(32, batch=16)
    assert compare(slow, fast)["speedup"] == 2
    assert compare(slow, fast)["speedup_interval"] == pytest.approx([1, 3])
    alone = [sample | {"batch": sample["doc_id"]} for sample in fast]
    assert compare(slow, alone)["speedup_interval"] == pytest.approx([1, 3])
    joined = [sample | {"batch": 0} for sample in fast]
    assert compare(slow, joined)["speedup"] == 2 and compare(slow, joined)["speedup_interval"] is None


def test_documents_of_a_turn_are_resampled_together():
    """The machine is slow for a while: what it did to five answers in a row is one draw, not five."""
    drifting = [scored(i, useful=10, seconds=3.0 if i // 5 % 2 else 1.0) for i in range(40)]
    by_document = changed(drifting, session=None)
    widths = [
        high - low
        for low, high in (summarise(r)["tokens_per_second_interval"] for r in (drifting, by_document))
    ]
    assert widths[0] > 1.8 * widths[1]
    assert turn_of(drifting) == [f"5e551011 {i // 5}" for i in range(40)]
    pairs = turn_of([scored(i, useful=1) | {"batch_size": 2} for i in range(8)])
    assert pairs == ["5e551011 0"] * 6 + ["5e551011 1"] * 2, "whole batches"


def test_a_turn_is_counted_within_its_session():
    shards = [scored(i, useful=1) | {"session": "0000000a" if i % 2 else "0000000b"} for i in range(20)]
    assert turn_of(shards)[::2] == [f"0000000b {i // 5}" for i in range(10)]


def test_a_ratio_of_the_same_turns_does_not_know_the_machine():
    slow = [scored(i, useful=10, seconds=6.0 if i // 5 % 2 else 2.0) for i in range(40)]
    fast = [sample | {"seconds": sample["seconds"] / 2} for sample in slow]
    result = compare(slow, fast)
    assert result["speedup"] == 2 and result["speedup_interval"] == pytest.approx([2, 2])


# Order, and what others count


@pytest.mark.parametrize(
    ("commits", "share"),
    [
        ([0, 1, 2, 3], 1),  # left to right
        ([0, 0, 1, 1], 1),  # two a step
        ([3, 2, 1, 0], 1 / 4),  # right to left: the last one alone
        ([2, 1, 1, 0], 1 / 4),  # of a step, those behind an open position are not
        ([1, 0, 1, 2], 3 / 4),  # what stands between them was there before
        ([0, -1, 1, 2], 1 / 3),  # left open, for good
    ],
)
def test_the_share_of_commits_at_the_leftmost_mask(commits, share):
    one = RUN[0] | {"commits": commits, "ids": [9] * sum(step >= 0 for step in commits)}
    assert summarise([one])["leftmost_share"] == pytest.approx(share)
    n = 12  # in random order, n positions hold 1 + 1/2 + ... + 1/n maxima of their steps
    rng = np.random.default_rng(0)
    orders = [RUN[0] | {"doc_id": i, "commits": rng.permutation(n).tolist()} for i in range(2000)]
    harmonic = sum(1 / k for k in range(1, n + 1)) / n
    assert summarise(orders)["leftmost_share"] == pytest.approx(harmonic, abs=0.01)


def test_commits_of_every_answer_weigh_alike():
    run = [RUN[0] | {"commits": [0, 1]}, RUN[1] | {"commits": [5, 4, 3, 2, 1, 0]}]
    assert summarise(run)["leftmost_share"] == pytest.approx((2 + 1) / 8)
    assert summarise([RUN[0] | {"commits": [], "ids": [], "useful": 0}])["leftmost_share"] is None


def test_published_counts_by_hand():
    run = [scored(0, useful=2, wasted=2), scored(1, useful=3)]
    run[0]["ids"], run[1]["ids"] = [5, 6, 2, 2], [7, 2, 8]  # an EOS in the middle counts as little
    counts = {"eos_id": 2, "retokenised": {"0/0": 1, "1/0": 5, "9/0": 100}}
    found = summarise(run, None, counts)
    assert (found["all_slots"], found["non_eos_tokens"], found["retokenised_tokens"]) == (180, 4, 6)
    del counts["retokenised"]["1/0"]
    assert summarise(run, None, counts)["retokenised_tokens"] is None, "no sum of some"


def test_means_over_answers_are_without_weights():
    fields = {"forwards": {"target": 3, "drafter": 2}, "positions": {"target": 9, "drafter": 9}}
    first = scored(0, useful=7, wasted=1, seconds=2.0) | fields | {"commits": [0, 1, 1, 1, 1, 1, 2, 2]}
    longer = {"forwards": {"target": 2, "drafter": 1}, "commits": [0, *[1] * 9]}
    second = scored(1, useful=10, seconds=1.0) | fields | longer
    found = summarise([first, second])
    assert found["acceptance_unweighted"] == pytest.approx(((5 + 2) / 2 + 9) / 2), "without the first step"
    assert found["seconds_per_token_unweighted"] == pytest.approx((2 / 8 + 1 / 10) / 2)
    slow = [sample | {"seconds": seconds} for sample, seconds in zip([first, second], (4, 6), strict=True)]
    result = compare(slow, [first, second])
    assert result["speedup_unweighted"] == pytest.approx((4 / 8 + 6 / 10) / (2 / 8 + 1 / 10))
    assert result["speedup"] == pytest.approx(10 / 3)
    assert compare(slow, changed([first, second], session=None))["speedup_unweighted"] is None


# Work and exactness

SHAPES = {
    "denoiser": {"body_parameters": 1000, "head_parameters": 500, "layers": 2, "width": 8},
    "auxiliary": {"body_parameters": 100, "head_parameters": 50, "layers": 1, "width": 4},
}


def test_flops_counted_by_hand():
    # prompt 10 and max_new_tokens 90: a context of 100
    denoiser = 50 * (2 * 1000 + 4 * 2 * 8 * 100)
    auxiliary = 15 * (2 * 100 + 4 * 1 * 4 * 100)
    heads = 2 * 500 * 12 + 2 * 50 * (15 - 10 + 1)  # every committed id; what follows the prompt's last token
    assert flops_of(RUN[0], SHAPES) == denoiser + auxiliary + heads
    total = sum(flops_of(sample, SHAPES) for sample in RUN)
    assert summarise(RUN, SHAPES)["flops_per_useful_token"] == pytest.approx(total / 80)
    assert summarise(RUN[2:3], SHAPES)["flops_per_useful_token"] is None, "no useful token"
    with pytest.raises(RecordError, match="no auxiliary"):
        summarise(RUN, {"denoiser": SHAPES["denoiser"]})


def test_heads_of_every_role_are_counted():
    drafted = {
        "prompt_length": 10,
        "ids": [1] * 9,
        "forwards": {"target": 3, "drafter": 2},
        "positions": {"target": 22, "drafter": 16},
    }
    block = {"target": {}, "drafter": {"context_parameters": 5}}
    assert heads_of(drafted, block) == {"target": 13, "drafter": 16}
    causal = drafted | {"positions": {"target": 22, "drafter": 18}}
    assert heads_of(causal, {"target": {}, "drafter": {}}) == {"target": 13, "drafter": 9}
    assert heads_of(
        drafted | {"forwards": {"denoiser": 3}, "positions": {"denoiser": 300}}, {"denoiser": {}}
    ) == {"denoiser": 9}


def test_exactness_counts_claims_and_their_truth():
    claims = [sample | {"exact": exact} for sample, exact in zip(RUN, (True, False, True, None), strict=True)]
    assert summarise(claims)["exact"] == [3, 2]


# Comparison


def test_comparison_pairs_common_documents():
    other = [
        scored(3, 1.0, useful=40, seconds=2.0, denoiser=4),
        scored(1, 1.0, useful=30, seconds=1.0, denoiser=9),
        scored(0, 1.0, useful=10, seconds=0.5, denoiser=9),
        scored(7, 0.0, useful=99, seconds=9.0, denoiser=9),
    ]
    result = compare(RUN, other)
    assert (result["n"], result["n_scored"], result["improved"], result["worsened"]) == (3, 3, 1, 0)
    assert result["accuracy_difference"] == pytest.approx(1 / 3)
    # of the 27 draws 8 hold no change and 1 holds nothing else
    assert result["accuracy_difference_interval"] == pytest.approx([0, 1])
    assert result["p_value"] == 1.0
    assert result["speedup"] == pytest.approx(2) and result["speedup_interval"] is None  # one turn
    assert result["speedup_void"] is None
    json.dumps(result, allow_nan=False)


def test_comparison_leaves_unscorable_pairs_out_of_accuracy_only():
    result = compare(RUN, changed(RUN, correct=None))
    assert (result["n"], result["n_scored"], result["accuracy_difference"]) == (4, 0, None)
    assert result["improved"] is result["p_value"] is None
    assert result["speedup"] == pytest.approx(1)
    silent = compare(RUN[2:3], RUN[2:3])
    assert silent["speedup"] is silent["speedup_interval"] is None
    assert silent["speedup_void"] == "the baseline has no useful token"


def test_comparison_refuses_what_cannot_be_paired():
    with pytest.raises(RecordError, match="different tasks"):
        compare(RUN, changed(RUN, task="other"))
    with pytest.raises(RecordError, match="in common"):
        compare(RUN[:1], RUN[1:2])
