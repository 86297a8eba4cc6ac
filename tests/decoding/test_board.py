"""The board: one forward with any visibility, rows of any lengths, and what a cache may keep."""

from functools import partial

import pytest
import torch

from unmask.decoding import Fed
from unmask.decoding.visibility import block_causal, causal

PROMPTS = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11]]
BUDGET, BLOCK = 8, 4


def filled(lab, models, *prompts, max_new_tokens=BUDGET):
    """A board on which some of the canvas is committed, so that columns differ."""
    board = lab.board(models, *prompts, max_new_tokens=max_new_tokens)
    generator = torch.Generator().manual_seed(7)
    commits = []
    for _ in board.rows:
        positions = (
            torch.randperm(max_new_tokens - 1, generator=generator)[: max_new_tokens // 2].sort().values + 1
        )
        commits.append(
            (positions.tolist(), torch.randint(14, (len(positions),), generator=generator).tolist())
        )
    board.commit(commits, None)
    return board


def sees_of(name, board, only=None):
    """The visibility of that name for the rows of a board."""
    rows = board.rows if only is None else [board.rows[i] for i in only]
    prompts = torch.tensor([len(row.prompt) for row in rows])
    return {
        "full": None,
        "causal": causal,
        "block_causal": partial(block_causal, prompts=prompts, block_length=BLOCK),
    }[name]


def expected_logits(model, board, i, name):
    """One row's logits by a forward of the model with a 4-D mask written out here."""
    n, prompt = board.rows[i].columns, len(board.rows[i].prompt)

    def block(j):
        return 0 if j < prompt else 1 + (j - prompt) // BLOCK

    rule = {
        "full": lambda q, k: True,
        "causal": lambda q, k: k <= q,
        "block_causal": lambda q, k: block(k) <= block(q),
    }[name]
    mask = torch.tensor([[rule(q, k) for k in range(n)] for q in range(n)])[None, None]
    return model(board.ids[i : i + 1, :n], attention_mask=mask).logits[0]


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


VISIBILITIES = ["full", "causal", "block_causal"]


@pytest.mark.parametrize("name", VISIBILITIES)
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS])
def test_a_forward_sees_what_the_rule_says(lab, denoiser, name, prompts):
    """Also where all rows are alike, and no mask is needed for what the model does by itself."""
    board = filled(lab, lab.Models(denoiser), *prompts)
    fed = [range(row.columns) for row in board.rows]
    logits = board.forward("denoiser", Fed(fed, sees_of(name, board))).logits
    for i, row in enumerate(board.rows):
        close(logits[i, : row.columns], expected_logits(denoiser, board, i, name))
    assert [row.forwards["denoiser"] for row in board.rows] == [1] * len(prompts)
    assert [row.positions["denoiser"] for row in board.rows] == [len(p) + BUDGET for p in prompts]


@pytest.mark.parametrize("name", ["causal", "block_causal"])
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS])
def test_a_causal_model_sees_what_the_rule_says(lab, qwen, name, prompts):
    """A block-causal forward of a causal model, too: the mask decides, not the model."""
    board = filled(lab, lab.Models(qwen), *prompts)
    fed = [range(row.columns) for row in board.rows]
    logits = board.forward("target", Fed(fed, sees_of(name, board))).logits
    for i, row in enumerate(board.rows):
        close(logits[i, : row.columns], expected_logits(qwen, board, i, name))


@pytest.mark.parametrize("name", ["causal", "block_causal"])
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS])
@pytest.mark.parametrize("size", [BLOCK, 2 * BLOCK])
def test_cached_equals_uncached(lab, denoiser, name, prompts, size):
    """First the prompt, then `size` columns at a time: whole blocks, so that no later key changes an earlier
    one."""
    board = filled(lab, lab.Models(denoiser), *prompts)
    lookback = denoiser.lookback
    expected = [expected_logits(denoiser, board, i, name) for i in range(len(prompts))]
    begin = [0] * len(prompts)
    for step in range(1 + BUDGET // size):
        ends = [len(prompt) + step * size for prompt in prompts]
        fed = [range(max(0, b - lookback), end) for b, end in zip(begin, ends, strict=True)]
        logits = board.forward("denoiser", Fed(fed, sees_of(name, board)), cached=True).logits
        for i, columns in enumerate(fed):
            # The first fed column of a model with a lookback has no predictor.
            skip = begin[i] - columns.start
            close(logits[i, skip : len(columns)], expected[i][begin[i] : columns.stop])
        begin = ends


def test_cached_equals_uncached_in_random_pieces(lab, qwen):
    """Under a causal mask any pieces do, of any rows, and what is fed again is written over."""
    generator = torch.Generator().manual_seed(3)
    board = filled(lab, lab.Models(qwen), *PROMPTS)
    expected = [expected_logits(qwen, board, i, "causal") for i in range(len(PROMPTS))]
    known = [0] * len(PROMPTS)

    def draw(low, high):
        return int(torch.randint(low, high, (), generator=generator))

    for _ in range(20):
        only = sorted(torch.randperm(3, generator=generator)[: draw(1, 4)].tolist())
        fed = []
        for i in only:
            columns = board.rows[i].columns
            start = min(draw(0, known[i] + 1), columns - 1)
            fed.append(range(start, draw(start + 1, columns + 1)))
            known[i] = max(known[i], fed[-1].stop)
        logits = board.forward("target", Fed(fed, causal, only=only), cached=True).logits
        for row, i, columns in zip(logits, only, fed, strict=True):
            close(row[: len(columns)], expected[i][columns.start : columns.stop])
    assert known == [row.columns for row in board.rows]


@pytest.mark.parametrize("name", VISIBILITIES)
@pytest.mark.parametrize("cached", [False, True])
def test_rows_of_different_lengths_equal_single_ones(lab, denoiser, name, cached):
    """Uncached and cached, with different columns fed, and where only some rows take part."""
    board = filled(lab, lab.Models(denoiser), *PROMPTS)
    fed = [range(row.columns - 3 * i) for i, row in enumerate(board.rows)]
    together = board.forward("denoiser", Fed(fed, sees_of(name, board)), cached=cached).logits
    some = board.forward(
        "denoiser", Fed([fed[0], fed[2]], sees_of(name, board, [0, 2]), only=[0, 2]), cached=cached
    ).logits
    for i, row in enumerate(board.rows):
        single = lab.board(lab.Models(denoiser), PROMPTS[i])
        single.ids = board.ids[i : i + 1, : row.columns]
        alone = single.forward("denoiser", Fed(fed[i : i + 1], sees_of(name, single)), cached=cached).logits[
            0
        ]
        close(together[i, : len(fed[i])], alone)
        if i != 1:
            close(some[i // 2, : len(fed[i])], alone)


def test_ids_of_a_draft_take_the_place_of_the_boards_own(lab, qwen):
    board = filled(lab, lab.Models(qwen), *PROMPTS)
    drafted = board.ids.clone()
    drafted[1, 3:6] = torch.tensor([1, 2, 3])
    output = board.forward("target", Fed([range(4), range(6), range(5)], causal), ids=drafted)
    close(output.logits[1, :6], qwen(drafted[1:2, :6]).logits[0])
    assert not torch.equal(drafted, board.ids)


def test_the_head_runs_on_the_columns_given_and_excludes_the_mask(lab, denoiser):
    board = filled(lab, lab.Models(denoiser), *PROMPTS)
    marginals = board.denoise(Fed([range(row.columns) for row in board.rows]))
    logits = marginals.logits([[5, 9], [2], [6, 7, 8]])
    assert logits.shape == (3, 3, lab.V) and logits[..., lab.MASK].isinf().all()
    for i, columns in enumerate(([5, 9, 9], [2, 2, 2], [6, 7, 8])):  # shorter lists repeat their last column
        expected = expected_logits(denoiser, board, i, "full")[columns]
        close(logits[i, :, : lab.MASK], expected[:, : lab.MASK])
    close(marginals.logits([[6, 7, 8]], only=[2])[0], logits[2])


# What a cache may keep


def test_a_window_keeps_what_was_committed_when_it_was_fed(lab, denoiser):
    board = lab.board(lab.Models(denoiser), *PROMPTS[:2])
    assert board.valid("denoiser") == [0, 0]
    board.denoise(Fed([range(13), range(8)]), cached=True)
    assert board.valid("denoiser") == [5, 2]  # keys and values of masks are void
    board.commit([([0, 1], [3, 4]), ([1], [5])], None)
    assert board.valid("denoiser") == [5, 2]  # the new tokens were masks when they were fed
    board.denoise(Fed([range(3, 13), range(1, 10)]), cached=True)
    assert board.valid("denoiser") == [7, 2]  # the second row's prefix has not grown: a gap
    board.commit([([], []), ([0], [6])], None)
    board.denoise(Fed([range(6, 13), range(1, 3)]), cached=True)
    assert board.valid("denoiser") == [7, 3]  # no further than what was fed, although 4 columns are known
    assert board.valid("denoiser", [1]) == [3]


def test_a_causal_cache_keeps_a_draft_until_it_is_rejected(lab, dream, qwen):
    board = lab.board(lab.Models(dream, qwen), *PROMPTS[:2])
    drafted = board.ids.clone()
    drafted[:, 5:10] = torch.tensor([1, 2, 3, 4, 5])
    board.forward("auxiliary", Fed([range(9), range(2)], causal), cached=True, ids=drafted)
    assert board.valid("auxiliary") == [9, 2]
    board.forward("auxiliary", Fed([range(2, 5)], causal, only=[1]), cached=True, ids=drafted)
    assert board.valid("auxiliary") == [9, 5] and board.valid("auxiliary", [1]) == [5]
    # Two of the draft's tokens are committed: all right of them is void, and the last one is fed again.
    board.commit([([0, 1], [1, 2]), ([0], [9])], None)
    assert board.valid("auxiliary") == [6, 2]
    # More is committed than was fed: what was fed stays.
    board.commit([([2, 3, 4], [1, 2, 3]), ([1, 2, 3], [1, 1, 1])], None)
    assert board.valid("auxiliary") == [6, 2]
    assert board.valid("denoiser") == [0, 0]  # every role has a cache of its own


def test_rows_that_leave_take_their_keys_and_values_with_them(lab, qwen):
    board = filled(lab, lab.Models(qwen), *PROMPTS)
    board.forward("target", Fed([range(5), range(2), range(4)], causal), cached=True)
    expected = expected_logits(qwen, board, 2, "causal")
    for position in range(BUDGET):
        if board.rows[1].canvas[position] is None:
            board.commit([([], []), ([position], [0]), ([], [])], None)
        if len(board.rows) == 2:
            break
    assert [row.index for row in board.rows] == [0, 2] and board.ids.size(0) == 2
    assert board.valid("target") == [4, 3]
    logits = board.forward("target", Fed([range(4, 13), range(4, 12)], causal), cached=True).logits
    close(logits[1, :8], expected[4:])


def test_reach_lets_a_block_see_cached_columns_right_of_it(lab, llada):
    """A dual cache (Fast-dLLM): the keys and values of the whole canvas are there, one block is fed again."""
    board = lab.board(lab.Models(llada), [1, 2, 3], max_new_tokens=6)
    whole = board.denoise(Fed([range(9)]), cached=True).logits([range(9)])
    again = board.forward("denoiser", Fed([range(3, 5)], reach=[9]), cached=True, logits_to_keep=None)
    hidden = again.hidden_states[-1]
    torch.testing.assert_close(llada.lm_head(hidden)[..., : lab.MASK], whole[:, 3:5, : lab.MASK])
    blind = board.forward("denoiser", Fed([range(3, 5)]), cached=True, logits_to_keep=None).hidden_states[-1]
    assert not torch.allclose(blind, hidden)
