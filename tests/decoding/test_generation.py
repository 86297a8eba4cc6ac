"""The stop rule, the row it is applied to, and what `decode` promises of its arguments."""

from itertools import pairwise

import pytest
import torch

from unmask.decoding import Generation, Row, Stop
from unmask.decoding.leftright import LeftRight


def row(max_new_tokens):
    return Row.fresh(0, [1, 2], max_new_tokens, seed=0, roles=["denoiser"])


def before(*needle):
    """A text stop: how many ids lie before the first occurrence of `needle`."""

    def match(ids, known=0):
        n = len(needle)
        return next((i for i in range(len(ids) - n + 1) if tuple(ids[i : i + n]) == needle), None)

    return match


def test_cut_is_at_the_first_stop_of_either_kind():
    stop = Stop(frozenset({7, 8}), before(3, 4))
    assert stop.cut([]) is None
    assert stop.cut([1, 3, 2, 4]) is None
    assert stop.cut([1, 8, 7]) == 1
    assert stop.cut([3, 4, 7]) == 0
    assert stop.cut([1, 7, 3, 4]) == 1  # the text stop lies after the end
    assert stop.cut([1, 3, 7, 4]) == 2  # and does not reach across it
    assert Stop().cut([7, 8]) is None


def test_a_stop_string_may_begin_in_an_earlier_step():
    seen = []
    match = before(3, 4)
    state, stop = row(6), Stop(match=lambda ids, known: seen.append(list(ids)) or match(ids))
    state.commit(([0, 1], [5, 3]), stop, None)
    assert not state.finished
    state.commit(([2, 3], [4, 9]), stop, None)
    assert state.finished and state.end == 1
    assert seen == [[5, 3], [5, 3, 4, 9]]
    assert state.generation().useful == 1 and state.generation().finish == "stop"
    assert state.generation().ids == [5, 3, 4, 9]


def test_a_stop_counts_once_everything_left_of_it_is_committed():
    state, stop, calls = row(4), Stop(frozenset({7})), []
    state.count("denoiser", 6)
    state.commit(([1, 3], [7, 5]), stop, lambda row, *step: calls.append((row.index, *step)))
    assert (state.prefix, state.end, state.finished) == (0, None, False)
    state.count("denoiser", 6)
    state.commit(([0], [6]), stop, lambda row, *step: calls.append((row.index, *step)))
    assert (state.prefix, state.end, state.finished) == (2, 1, True)
    assert calls == [(0, [1, 3], [7, 5]), (0, [0], [6])]

    generation = state.generation()
    assert generation == Generation(
        ids=[6, 7, 5],
        commits=[1, 0, -1, 0],  # the third position is left open
        useful=1,
        finish="stop",
        forwards={"denoiser": 2},
        positions={"denoiser": 12},
    )
    assert generation.steps == [2, 1]


def test_a_fresh_row_has_committed_nothing_and_cost_nothing():
    fresh = Row.fresh(3, [1, 2], 4, 9, ["denoiser", "auxiliary"])
    assert (fresh.index, fresh.seed, fresh.first, fresh.columns, fresh.finished) == (3, 9, 2, 6, False)
    generation = fresh.generation()
    assert (generation.ids, generation.commits, generation.useful) == ([], [], 0)
    assert generation.forwards == generation.positions == {"denoiser": 0, "auxiliary": 0}
    assert generation.steps == []
    fresh.count("auxiliary", 5)
    assert (fresh.forwards, fresh.positions) == (
        {"denoiser": 0, "auxiliary": 1},
        {"denoiser": 0, "auxiliary": 5},
    )


def test_a_step_may_commit_nothing():
    state, calls = row(3), []
    for positions, ids in (([], []), ([2, 0], [5, 6]), ([], []), ([1], [7])):
        state.count("denoiser", 5)
        state.commit((positions, ids), Stop(), lambda row, *step: calls.append((row.index, *step)))
    assert calls == [(0, [], []), (0, [2, 0], [5, 6]), (0, [], []), (0, [1], [7])]
    generation = state.generation()
    assert (generation.commits, generation.steps, generation.ids) == ([1, 3, 1], [0, 2, 0, 1], [6, 7, 5])


def test_the_stop_rule_is_applied_only_when_the_prefix_grew():
    searched = []
    state, stop = row(4), Stop(match=lambda ids, known: searched.append(list(ids)))
    state.commit(([2], [5]), stop, None)
    state.commit(([0], [5]), stop, None)
    state.commit(([3], [5]), stop, None)
    state.commit(([1], [5]), stop, None)
    assert searched == [[5], [5, 5, 5, 5]]


def test_incremental_stops_equal_the_rule_on_the_whole_prefix():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        state, stop = row(8), Stop(frozenset({0}), before(1, 2))
        order, ids = (
            torch.randperm(8, generator=generator).tolist(),
            torch.randint(0, 6, (8,), generator=generator),
        )
        for start, end in pairwise((0, 3, 5, 6, 7, 8)):
            positions = order[start:end]
            state.commit((positions, ids[positions].tolist()), stop, None)
            assert state.end == stop.cut(state.canvas[: state.prefix])
            if state.finished:
                break
        assert state.finished


def test_arguments_are_checked(lab, dream):
    models, prompt = lab.Models(dream), torch.tensor([1, 2])
    assert LeftRight().decode(models, [], 4, Stop(), []) == []
    with pytest.raises(ValueError, match="max_new_tokens"):
        LeftRight().decode(models, [prompt], 0, Stop(), [0])
    with pytest.raises(ValueError, match="zip"):
        LeftRight().decode(models, [prompt, prompt], 4, Stop(), [0])


def test_steps_without_tokens_fail_instead_of_looping_for_ever(lab, dream):
    class Idle(LeftRight):
        def step(self, board):
            self.denoise(board)
            return [([], [])] * len(board.rows)

    with pytest.raises(AssertionError, match="nothing new in 5 steps"):
        Idle().decode(lab.Models(dream), [torch.tensor([1, 2])], 4, Stop(), [0])


def test_a_decoder_that_lets_a_mask_out_is_stopped(lab, dream):
    class Masks(LeftRight):
        def step(self, board):
            self.denoise(board)
            return [([row.prefix], [lab.MASK]) for row in board.rows]

    with pytest.raises(AssertionError, match="mask id 15"):
        Masks().decode(lab.Models(dream), [torch.tensor([1, 2])], 4, Stop(), [0])
