"""Left to right: step-by-step traces, the recompute window and the lookahead, and the autoregressive
limit."""

import pytest
import torch

from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.leftright import LeftRight

PROMPT = [1, 2, 3, 4, 5]


def test_one_token_a_step(lab):
    model = lab.Scripted(lab.on_canvas(lab.favourites(3, 4, 5)), lab.MASK)
    generation, steps = lab.trace(LeftRight(), lab.Models(model), [0, 1], 3)
    assert steps == [([0], [3]), ([1], [4]), ([2], [5])]
    assert model.seen == [[0, 1, 15, 15, 15], [0, 1, 3, 15, 15], [0, 1, 3, 4, 15]]
    assert lab.essence(generation) == {
        "ids": [3, 4, 5],
        "commits": [0, 1, 2],
        "useful": 3,
        "finish": "length",
        "forwards": {"denoiser": 3},
        "positions": {"denoiser": 15},
        "seconds": None,
        "lost": None,
    }


def test_the_last_step_takes_what_is_left(lab):
    model = lab.Scripted(lab.on_canvas(lab.favourites(*range(8))), lab.MASK)
    generation, steps = lab.trace(LeftRight(tokens_per_step=3), lab.Models(model), [0, 1], 8)
    assert steps == [([0, 1, 2], [0, 1, 2]), ([3, 4, 5], [3, 4, 5]), ([6, 7], [6, 7])]
    assert generation.steps == [3, 3, 2]
    _, steps = lab.trace(LeftRight(tokens_per_step=50), lab.Models(model), [0, 1], 8)
    assert steps == [(list(range(8)), list(range(8)))]


def test_what_a_step_commits_after_a_stop_is_not_useful(lab):
    model = lab.Scripted(lab.on_canvas(lab.favourites(3, 4, 5, 6, lab.EOS, 7, 8, 9)), lab.MASK)
    generation, steps = lab.trace(LeftRight(tokens_per_step=3), lab.Models(model), [0, 1], 8)
    assert steps == [([0, 1, 2], [3, 4, 5]), ([3, 4, 5], [6, lab.EOS, 7])]
    assert (generation.ids, generation.useful, generation.finish) == ([3, 4, 5, 6, lab.EOS, 7], 4, "stop")
    assert generation.forwards == {"denoiser": 2}


def test_lookahead_limits_what_is_fed_and_committed(lab):
    model = lab.Scripted(lab.on_canvas(lab.favourites(*range(6))), lab.MASK)
    generation, _ = lab.trace(LeftRight(max_lookahead=3), lab.Models(model), [0, 1], 6)
    assert [len(ids) - 2 for ids in model.seen] == [3, 4, 5, 6, 6, 6]  # t + M, at most max_new_tokens
    assert generation.positions == {"denoiser": 12 + 30}
    generation, _ = lab.trace(LeftRight(tokens_per_step=4, max_lookahead=2), lab.Models(model), [0, 1], 6)
    assert generation.steps == [2, 2, 2]


# The window


@pytest.mark.parametrize("window", [1, 2, 4, 100])
def test_the_window_feeds_what_the_rule_says(lab, window):
    model = lab.Scripted(lab.on_canvas(lab.favourites(*range(10)), 5), lab.MASK)
    hook = lab.Hook(model)
    _, steps = lab.trace(LeftRight(tokens_per_step=3, kv_window=window), lab.Models(model), PROMPT, 10)
    assert [ids for _, ids in steps] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    # Everything first; then the tokens of the last step, W - 1 columns left of them, and the masks.
    assert hook.fed == [15] + [15 - max(0, 5 + t - (window - 1)) for t in (0, 3, 6)]
    # What a step attends to is the prompt, what is committed, and masks: no mask survives in the cache.
    assert model.seen == [PROMPT + list(range(t)) + [lab.MASK] * (10 - t) for t in (0, 3, 6, 9)]


def test_window_and_lookahead_together(lab):
    model = lab.Scripted(lab.on_canvas(lab.favourites(*range(8)), 5), lab.MASK)
    hook = lab.Hook(model)
    lab.trace(LeftRight(kv_window=3, max_lookahead=3), lab.Models(model), PROMPT, 8)
    ends = [5 + min(8, t + 3) for t in range(8)]
    assert hook.fed == [ends[0]] + [ends[t] - (5 + t - 1 - 2) for t in range(1, 8)]


def test_window_1_feeds_dream_the_token_before_the_first_mask(lab, dream):
    hook = lab.Hook(dream)
    generation, _ = lab.trace(LeftRight(kv_window=1), lab.Models(dream), PROMPT, 6, stop=())
    hook.handle.remove()
    assert hook.fed == [11, 6, 5, 4, 3, 2]  # the token committed last, and the masks
    assert len(generation.ids) == 6


def test_a_repeated_forward_still_feeds_dream_the_token_before(lab, dream):
    """Nothing committed in between: no decoder here does it, but the cache of one that did would be right."""
    board, decoder = lab.board(lab.Models(dream), PROMPT, max_new_tokens=4), LeftRight(kv_window=1)
    first, again = (decoder.denoise(board)[0].logits([[5]]) for _ in range(2))
    torch.testing.assert_close(again, first)
    assert board.rows[0].positions == {"denoiser": 9 + 5}


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_large_windows_and_lookaheads_change_nothing(lab, denoiser, k, temperature):
    def ids(**settings):
        decoder = LeftRight(tokens_per_step=k, temperature=temperature, **settings)
        return lab.trace(decoder, lab.Models(denoiser), PROMPT, 9, stop=())[0].ids

    exact = ids()
    assert ids(max_lookahead=9) == ids(max_lookahead=99) == exact
    assert ids(kv_window=5 + 9 + 1) == ids(kv_window=99, max_lookahead=99) == exact


@pytest.mark.parametrize("k", [1, 2])
def test_every_window_decodes_the_whole_canvas(lab, denoiser, k):
    for window in (1, 2, 3, 6, 9):
        decoder = LeftRight(tokens_per_step=k, kv_window=window, max_lookahead=6)
        generation, steps = lab.trace(decoder, lab.Models(denoiser), PROMPT, 9, stop=())
        assert [i for positions, _ in steps for i in positions] == list(range(9))
        assert len(generation.ids) == sum(generation.steps) == 9


def test_under_a_causal_mask_the_cache_is_exact(lab, causal_denoiser):
    """Then no key or value depends on what comes later, so that no window approximates anything."""
    exact = lab.trace(LeftRight(tokens_per_step=2), lab.Models(causal_denoiser), PROMPT, 12, stop=())[0].ids
    for window in (1, 2, 5):
        for lookahead in (None, 2, 5):
            decoder = LeftRight(tokens_per_step=2, kv_window=window, max_lookahead=lookahead)
            assert lab.trace(decoder, lab.Models(causal_denoiser), PROMPT, 12, stop=())[0].ids == exact


# The autoregressive limit


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.8}, {"temperature": 0.8, "top_k": 3}])
@pytest.mark.parametrize("window", [None, 1, 3])
def test_over_a_causal_model_k_1_is_autoregressive_decoding(lab, qwen, causal_denoiser, settings, window):
    prompts = [torch.tensor(PROMPT[:n]) for n in (5, 2, 4)]
    arguments = (prompts, 12, lab.Stop(frozenset({lab.EOS})), [4, 5, 6])
    expected = [g.ids for g in Autoregressive(**settings).decode(lab.Models(qwen), *arguments)]
    got = LeftRight(kv_window=window, **settings).decode(lab.Models(causal_denoiser), *arguments)
    assert not any(lab.MASK in ids for ids in expected)  # or excluding masks would make a difference
    assert [g.ids for g in got] == expected
    assert {len(ids) for ids in expected} != {1}


def test_autoregressive_equals_uncached_greedy(lab, qwen):
    generation, steps = lab.trace(Autoregressive(), lab.Models(qwen), PROMPT, 8, stop=())
    ids = torch.tensor([PROMPT])
    for _ in range(8):
        ids = torch.cat((ids, qwen(ids).logits[:, -1:].argmax(-1)), 1)
    assert generation.ids == ids[0, 5:].tolist()
    assert steps == [([i], [token]) for i, token in enumerate(generation.ids)]
    assert generation.forwards == {"target": 8} and generation.positions == {"target": 5 + 7}
