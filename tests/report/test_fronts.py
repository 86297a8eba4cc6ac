"""What sums up a sweep: fronts, AUP with its interval."""

import math

import numpy as np
import pandas as pd
import pytest

from unmask.report.fronts import aup, aups, front
from unmask.report.pareto import lines_of

BASELINE = "leftright K=1"


def write_fig3(record):
    """tiny_dream: one token a step, 32 of 40 right; APD at 2 tokens a step, 31 right, or 3 and fewer."""

    def right(cfg):
        return {"leftright": 32}.get(cfg.decoder.name) or 31 - 10 * (cfg.decoder.mixture_weight > 0.1)

    def per_step(cfg):
        return 1 if cfg.decoder.name == "leftright" else 2 + (cfg.decoder.mixture_weight > 0.1)

    record("figure=fig3", documents=40, total=40, right=right, per_step=per_step)


def test_front():
    x, y = np.array([1, 2, 3, 3]), np.array([5, 5, 4, 3])
    assert front(x, y).tolist() == [False, True, True, False]
    assert front(x, y, higher=False).tolist() == [True, False, False, False]
    assert front([1, 1], [2, 2]).tolist() == [True, True]


def test_aup_by_hand_and_beside_the_published_values():
    weighed = [w * math.exp(-3 * (1 - w / 80)) for w in (78, 76)]
    assert aup([3, 1, 2], [76, 80, 78], 80) == pytest.approx(80 + (80 + weighed[0]) / 2 + sum(weighed) / 2)
    more_than_5_points_down = aup([1, 2, 9], [80, 78, 74.9], 80)
    assert more_than_5_points_down == pytest.approx(80 + (80 + weighed[0]) / 2)
    assert aup([2], [72.55], 74.68) == pytest.approx(2 * 72.55)
    # d3LLM's leaderboard, LLaDA rows on GSM8K: TPF, accuracy and AUP are published, the accuracy at TPF = 1
    # is not; it lies between LLaDA's own and the best of all.
    for tpf, accuracy, published in (
        (2.77, 74.68, 205.8),
        (2.88, 74.39, 213.8),
        (5.14, 72.63, 358.1),
        (9.11, 73.09, 637.7),
    ):
        low, high = (aup([1, tpf], [first, accuracy], 74.68) for first in (72.55, 74.68))
        assert low < published < high


def test_a_setting_5_points_down_counts_whatever_the_floats_say():
    """28 and 18 of 200 right are 5 points apart; as floats they are a little more."""
    first, last = 100 * (28 / 200), 100 * (18 / 200)
    assert last < first - 5, "the case that this is about"
    assert aup([1, 3], [first, last], 14) > 14 + 10
    assert aup([1, 3], [first, last - 0.5], 14) == first


def test_aup_of_a_sweep_begins_at_one_token_a_step(record, read):
    write_fig3(record)
    found = read("figure=fig3", limit=40)
    ((place, area),) = aups(found.rows, found.scored, [BASELINE]).items()
    assert (place[0], place[1], place[3]) == ("tiny_dream", "gsm_symbolic", "apd")
    # Settings at 52.5% are more than 5 points below 80% and do not count.
    assert area.value == pytest.approx(aup([1, 2, 2], [80, 77.5, 77.5], 80))
    assert area.low < area.value < area.high


def test_aup_resamples_the_same_documents_for_all_settings(record, read):
    """With equal answers everywhere, AUP is the accuracy times a constant, and so is its interval."""
    record("figure=fig3", documents=40, total=40, right=20, per_step=lambda c: 1 + (c.decoder.name == "apd"))
    found = read("figure=fig3", limit=40)
    (area,) = aups(found.rows, found.scored, [BASELINE]).values()
    constant = area.value / 0.5
    assert area.value == pytest.approx(50 + 50)
    spread = 1.96 * math.sqrt(0.25 / 40)
    assert area.low / constant == pytest.approx(0.5 - spread, abs=0.02)
    assert area.high / constant == pytest.approx(0.5 + spread, abs=0.02)


def test_runs_of_another_figure_change_neither_aup_nor_front(record, read):
    write_fig3(record)
    before = read("figure=fig3", limit=40)
    # Figure 4 has APD settings that are better at more tokens a step.
    record("figure=fig4", documents=40, total=40, right=38, per_step=6)
    record("figure=fig6", "task=gsm_symbolic", documents=40, total=40, right=39, per_step=6)
    after = read("figure=fig3", limit=40)
    assert aups(after.rows, after.scored, [BASELINE]) == aups(before.rows, before.scored, [BASELINE])
    on = [front(found.rows.tokens_per_step, found.rows.accuracy).tolist() for found in (before, after)]
    assert on[0] == on[1]


def test_no_aup_without_baseline_or_of_two_points(record, read):
    write_fig3(record)
    two = read("figure=fig3", "arm=one,apd", "decoder.mixture_weight=0.1", limit=40)
    assert aups(two.rows, two.scored, [BASELINE]) == {}
    none = read("figure=fig3", "arm=apd", "decoder.mixture_weight=0.0,0.1,0.3,0.5", limit=40)
    assert aups(none.rows, none.scored, [BASELINE]) == {}


def test_aup_of_a_group_weighs_its_tasks_alike():
    """As the accuracy does: the unweighted mean over subjects, of unequal size."""

    def documents(right_of_each):
        rows = []
        for subject, (count, right) in enumerate(zip((30, 10), right_of_each, strict=True)):
            for i in range(count):
                doc = {"doc_id": 100_000 * subject + i, "task": f"s{subject}", "useful": 4}
                rows.append(doc | {"forwards": {"denoiser": 2}, "correct": float(i < right)})
        return rows

    scored = {name: documents((30, 5)) for name in ("a", "b", "c")}
    rows = pd.DataFrame({"run": list(scored), "accuracy": 0.75, "plain": [BASELINE, "apd", "apd"]})
    rows = rows.assign(model="m", task="t", conditions="x", decoder=["leftright", "apd", "apd"])
    (area,) = aups(rows, scored, [BASELINE]).values()
    assert area.value == pytest.approx(2 * 75)  # pooled, it were 2 * 87.5


def test_a_line_joins_settings_that_differ_in_one_number_alone():
    labels = ["threshold B=8 tau=0.9", "threshold B=8 tau=0.7", "threshold B=8 tau=0.9 cache=dual"]
    labels += ["threshold B=8 tau=0.7 cache=dual", "threshold B=8 tau=0.5 cache=dual"]
    rows = pd.DataFrame({"model": "m", "decoder": "threshold", "plain": labels})
    lines = [(name, list(line.index)) for _, name, line in lines_of(rows)]
    assert lines == [("", [0, 1]), ("cache=dual", [2, 3, 4])]
    (alone,) = lines_of(rows[:1])
    assert alone[1] == ""
