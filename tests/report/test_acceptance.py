"""Acceptance from records: lengths of steps, and how often the k-th drafted token is taken."""

import pytest

from unmask.report.acceptance import conditional, lengths


def sample(*steps, max_new_tokens=100):
    """The record of an answer whose steps took so many tokens."""
    commits = [n for n, count in enumerate(steps) for _ in range(count)]
    return {"commits": commits, "forwards": {"target": len(steps)}, "max_new_tokens": max_new_tokens}


def test_the_prompts_step_and_those_that_the_budget_cut_do_not_count():
    assert lengths(sample(1, 4, 2, 1, 3), 4) == [4, 2, 1, 3]
    assert lengths(sample(1), 4) == []
    assert lengths(sample(1, 4, 2, 1, 2, max_new_tokens=10), 4) == [
        4,
        2,
    ]  # 7 and 8 tokens in: blocks of 3 and of 2


def test_conditional_acceptance_in_closed_form():
    documents = [[4, 2, 1], [1, 1, 4], [3]]  # drafted tokens taken: 3, 1, 0; 0, 0, 3; 2
    assert conditional(documents, 1).value == pytest.approx(4 / 7)
    assert conditional(documents, 2).value == pytest.approx(3 / 4)
    assert conditional(documents, 3).value == pytest.approx(2 / 3)
    assert conditional(documents, 4).value == 0
    assert conditional(documents, 5) is None
