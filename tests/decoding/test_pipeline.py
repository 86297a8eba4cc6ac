"""Pipelines of blocks: what is exact, when a block begins and becomes full, where an end token stops."""

from dataclasses import replace

import pytest
import torch

from unmask.decoding.pipeline import D2F, MultiBlock
from unmask.decoding.unmasking import Unmasking
from unmask.decoding.visibility import block_causal

PROMPTS = [torch.tensor(ids) for ids in ([1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11, 12, 13, 0])]
BUDGET = 11


class BlockCausal(torch.nn.Module):
    """A denoiser whose attention is block-causal whoever calls it: no cache, no mask handed in."""

    def __init__(self, model, prompt, block):
        super().__init__()
        self.inner, self.prompt, self.block = model, prompt, block
        self.config, self.lookback, self.lm_head = model.config, model.lookback, model.lm_head
        self.device = model.device

    def forward(self, input_ids, **kwargs):
        columns = torch.arange(input_ids.size(1))[None]
        limit = block_causal(columns, torch.tensor([self.prompt]), self.block)
        mask = (columns < limit[..., None])[:, None]
        return self.inner(input_ids, attention_mask=mask, position_ids=columns, logits_to_keep=None)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("fallback", ["default", "neg_entropy", "margin"])
@pytest.mark.parametrize("block_length", [1, 3, 4, 16])
def test_the_cache_is_exact(lab, denoiser, block_length, fallback, temperature):
    """Id for id, step for step, whatever is in the pipeline; and it feeds less."""
    settings = {
        "skip_threshold": 0.5,
        "block_add_threshold": 0.25,
        "decoded_token_threshold": 0.5,
        "temperature": temperature,
    }
    cached = D2F(block_length=block_length, fallback=fallback, **settings)
    models, stop = lab.Models(denoiser), lab.Stop(frozenset({lab.EOS}))
    for prompt in PROMPTS:
        (one,) = cached.decode(models, [prompt], BUDGET, stop, [3])
        (two,) = replace(cached, cache="off").decode(models, [prompt], BUDGET, stop, [3])
        assert (one.ids, one.commits, one.forwards) == (two.ids, two.commits, two.forwards)
        if len(one.steps) > 1:
            assert one.positions["denoiser"] < two.positions["denoiser"]


def test_all_shares_one_is_block_by_block_one_token_a_forward(lab, denoiser):
    """The same as unmasking the likeliest token of each block, on a model that is block-causal by itself."""
    decoder = D2F(block_length=4, block_add_threshold=1.0, decoded_token_threshold=1.0, skip_threshold=1.0)
    for prompt in PROMPTS:
        blocks = lab.Models(BlockCausal(denoiser, len(prompt), 4))
        generation, steps = lab.trace(decoder, lab.Models(denoiser), prompt.tolist(), 12, stop=())
        vanilla, same = lab.trace(Unmasking(block_length=4), blocks, prompt.tolist(), 12, stop=())
        assert steps == [(list(p), list(i)) for p, i in same] and len(steps) == 12
        assert generation.ids == vanilla.ids


def sure_of(lab, *sure):
    """A denoiser that is sure (0.99) of token 3 at these canvas positions, and of 2 (0.6) elsewhere."""
    logits = lab.favourites(*[3 if p in sure else 2 for p in range(8)], strength=0.0)
    for p in range(8):
        share = 0.99 if p in sure else 0.6
        logits[p, 3 if p in sure else 2] = torch.tensor(15 * share / (1 - share)).log()
    return lab.Models(lab.Scripted(lab.on_canvas(logits), lab.MASK))


@pytest.mark.parametrize(
    ("block_add_threshold", "decoded_token_threshold", "expected"),
    [
        # Block by block: the second one begins when the first one is decoded.
        (1.0, 1.0, [[0, 1], [2], [3], [4, 5], [6], [7]]),
        # It begins at half of the first, and is full when that is decoded: 4 and 5 are sure, 6 has to wait.
        (0.5, 1.0, [[0, 1], [2, 4, 5], [3], [6], [7]]),
        # It is full at half of the first, too: from then on it commits one a step.
        (0.5, 0.5, [[0, 1], [2, 4, 5], [3, 6], [7]]),
    ],
)
def test_blocks_begin_and_become_full_at_their_shares(
    lab, block_add_threshold, decoded_token_threshold, expected
):
    decoder = D2F(
        block_length=4,
        block_add_threshold=block_add_threshold,
        decoded_token_threshold=decoded_token_threshold,
        skip_threshold=0.9,
    )
    _, steps = lab.trace(decoder, sure_of(lab, 0, 1, 4, 5), [0, 1], 8, stop=())
    assert [list(positions) for positions, _ in steps] == expected


def test_the_confidence_is_strictly_above(lab):
    logits = torch.zeros(8, lab.V)
    logits[:, lab.MASK] = -torch.inf  # 15 equal tokens
    models = lab.Models(lab.Scripted(lab.on_canvas(logits), lab.MASK))
    for skip_threshold, first in ((1 / 15 + 1e-6, 1), (1 / 15 - 1e-6, 8), (0.0, 8)):
        _, steps = lab.trace(D2F(block_length=8, skip_threshold=skip_threshold), models, [0, 1], 8, stop=())
        assert len(steps[0][0]) == first


def test_a_block_left_of_the_end_token_is_finished_and_those_right_of_it_are_given_up(lab):
    """The end token stands at 5, sure from the start; 2 and 3 take two steps more."""
    models = sure_of(lab, 0, 1, 4, 5, 6)
    decoder = D2F(block_length=2, block_add_threshold=0.0, decoded_token_threshold=0.0, skip_threshold=0.9)
    script = models["denoiser"].script

    def with_end(ids):
        logits = script(ids).clone()
        if len(ids) > 7:
            logits[7, lab.EOS] = 20.0  # canvas position 5
        return logits

    models = lab.Models(lab.Scripted(with_end, lab.MASK))
    generation, steps = lab.trace(decoder, models, [0, 1], 8)
    assert [list(p) for p, _ in steps] == [[0, 1], [2], [3, 4, 5]]
    assert (generation.finish, generation.useful) == ("stop", 5)
    filled, steps = lab.trace(replace(decoder, after_end="fill"), models, [0, 1], 8)
    assert filled.ids == generation.ids and filled.useful == 5


def test_blocks_right_of_an_end_token_are_fed_no_more(lab):
    """The last block holds an end token at 4 before the first one is done; then 6 and 7 leave the forward."""
    logits = lab.favourites(2, 2, 2, 2, 14, 2, 2, 2, strength=3.0)  # 0.57 each
    logits[4, lab.EOS] = 20.0
    models = lab.Models(lab.Scripted(lab.on_canvas(logits), lab.MASK))
    decoder = D2F(block_length=2, block_add_threshold=0.0, decoded_token_threshold=1.0, skip_threshold=0.9)
    generation, steps = lab.trace(decoder, models, [0, 1], 8)
    assert (generation.finish, generation.useful) == ("stop", 4)
    assert max(p for positions, _ in steps for p in positions) <= 5
    assert max(map(len, models["denoiser"].seen)) == 2 + 6


def test_a_short_last_block(lab, denoiser):
    decoder = D2F(block_length=4, skip_threshold=1.0)
    generation, _ = lab.trace(decoder, lab.Models(denoiser), [1, 2, 3], 6, stop=())
    assert len(generation.ids) == 6


def test_early_stop_fills_with_the_end_token_what_stands_right_of_it(lab):
    logits = lab.favourites(2, 2, 2, 14, 2, 2, 2, 2, strength=3.0)
    logits[3, lab.EOS] = 20.0
    models = lab.Models(lab.Scripted(lab.on_canvas(logits), lab.MASK))
    decoder = MultiBlock(block_length=4, entropy_max=0.1)
    generation, steps = lab.trace(decoder, models, [0, 1], 8)
    assert list(steps[0][0]) == [3, 4, 5, 6, 7] and set(steps[0][1]) == {lab.EOS}
    assert (generation.finish, generation.useful, len(steps)) == ("stop", 3, 4)


@pytest.mark.parametrize(("rule", "second"), [("llada", [1, 4]), ("dream", [1])])
def test_llada_commits_its_lowest_entropy_wherever_it_is(lab, rule, second):
    """Nothing is below the entropy. The surest token is in the second block, which is not full."""
    logits = lab.favourites(*[2] * 8, strength=2.0)
    logits[0] *= 1.1
    logits[4] *= 1.2
    models = lab.Models(lab.Scripted(lab.on_canvas(logits), lab.MASK))
    decoder = MultiBlock(
        block_length=4, entropy_max=0.5, block_add_threshold=0.25, decoded_token_threshold=1.0, rule=rule
    )
    _, steps = lab.trace(decoder, models, [0, 1], 8, stop=())
    assert list(steps[0][0]) == [0]  # the first block alone
    assert list(steps[1][0]) == second  # LLaDA's, and of the first full block the surest


def test_multiblock_checks_its_entropy():
    with pytest.raises(ValueError, match=r"entropy_max=3.*above 2\.77"):
        MultiBlock(entropy_max=3).check(8, vocabulary=16)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (D2F, {"block_length": None}),
        (MultiBlock, {"block_length": None}),
        (MultiBlock, {"cache_delay_iter": None}),
    ],
)
def test_none_is_refused_where_a_number_is_needed(kind, settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))}=None"):
        kind(**settings)
