"""Block diffusion: published traces, exact modes, what goes with what."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unmask.decoding.blocks import Blocks
from unmask.decoding.pipeline import D2F
from unmask.decoding.quotas import linear_counts
from unmask.models.layouts import LAYOUTS
from unmask.testing import golden
from unmask.testing.check import check_decoder
from unmask.testing.logits import CLOSE, check_logits, expected_in

GOLDEN = Path(__file__).parents[1] / "golden" / "block_models"
PROMPTS = [torch.tensor(range(40, 40 + n)) for n in (5, 8, 13, 1)]
SHARP = 4.0  # on logits: flat random distributions would never pass a threshold
RULES = {
    "static": {"steps_per_block": 3},
    "dynamic": {"quota": "dynamic", "threshold": 0.6},
    "linear": {"quota": "linear", "steps": 11},
    "even": {"quota": "even", "steps_per_block": 5},
    "entropy_sum": {"quota": "entropy_sum", "rank": "entropy", "bound": 1.0},
    "leftmost": {"rank": "leftmost", "steps_per_block": 4},
    "sub_blocks": {"quota": "dynamic", "threshold": 0.6, "sub_block_length": 4},
}
SEPARATE = {"store": "separate"}
MODES = [SEPARATE, {**SEPARATE, "prefix": "recomputed"}, {"cache": "none"}]


def decode(lab, decoder, model, prompts, n=21, stop=(318,)):
    return decoder.decode(lab.Models(model), prompts, n, lab.Stop(frozenset(stop)), list(range(len(prompts))))


@pytest.mark.parametrize("folder", ["sdar", "a2d_qwen3", "llada2", "fast_dllm_v2"])
@pytest.mark.parametrize("rule", RULES)
def test_exact_modes_and_batches_change_no_token(lab, folder, rule):
    """They feed less, or more often, and commit the same; a row is what it is alone."""
    model = golden.model_in(GOLDEN / folder, SHARP)
    fused = Blocks(block_length=8, **RULES[rule])
    together = decode(lab, fused, model, PROMPTS)
    for mode in MODES:
        for one, other in zip(together, decode(lab, replace(fused, **mode), model, PROMPTS), strict=True):
            assert one.ids == other.ids
            extra = other.forwards["denoiser"] - one.forwards["denoiser"]
            assert extra > 0 if mode.get("store") else extra == 0
    for prompt, seed, row in zip(PROMPTS, range(4), together, strict=True):
        (alone,) = fused.decode(lab.Models(model), [prompt], 21, lab.Stop(frozenset({318})), [seed])
        assert lab.essence(alone) | {"seconds": None} == lab.essence(row) | {"seconds": None}


def test_fed_columns_by_mode(lab):
    """A prompt of 5 and blocks of 8 from column 0: the first block has 3 new tokens, the second 8."""
    model = golden.model_in(GOLDEN / "sdar", 1.0)
    static = Blocks(block_length=8, steps_per_block=1)
    cost = {}
    for name, mode in {"fused": {}, "separate": SEPARATE, "none": {"cache": "none"}}.items():
        (row,) = decode(lab, replace(static, **mode), model, PROMPTS[:1], 11, stop=())
        cost[name] = row.forwards["denoiser"], row.positions["denoiser"]
    assert cost == {"fused": (2, 8 + 16), "separate": (3, 8 + 8 + 8), "none": (2, 8 + 16)}
    stored = replace(static, after_end="block", **SEPARATE)
    (row,) = decode(lab, stored, model, PROMPTS[:1], 11, stop=())
    assert (row.forwards["denoiser"], row.positions["denoiser"]) == (4, 32)  # the last block too


def test_the_next_tokens_model_hands_its_first_token_over(lab):
    """Cached and uncached agree; a sub-block that is fed alone is cheaper."""
    model = golden.model_in(GOLDEN / "fast_dllm_v2", SHARP)
    rule = {"quota": "dynamic", "threshold": 0.7, "sub_block_length": 4}
    handing = Blocks(block_length=8, hand_over=True, **SEPARATE, **rule)
    exact = decode(lab, handing, model, PROMPTS)
    bare = decode(lab, replace(handing, cache="none"), model, PROMPTS)
    assert [row.ids for row in exact] == [row.ids for row in bare]
    block = decode(lab, replace(handing, cache="block"), model, PROMPTS, stop=())
    full = decode(lab, handing, model, PROMPTS, stop=())
    spent = [
        sum(row.positions["denoiser"] for row in rows) / sum(len(row.steps) for row in rows)
        for rows in (block, full)
    ]
    assert spent[0] < spent[1]


@pytest.mark.parametrize("folder", ["sdar", "a2d_qwen2", "fast_dllm_v2", "llada2"])
def test_d2fs_pipeline_counts_blocks_as_the_model_does(lab, folder):
    """Multi-block decoding: its cache is exact on these models too, and shares of 1 are block by block."""
    model = golden.model_in(GOLDEN / folder, SHARP)
    pipeline = D2F(block_length=8, skip_threshold=0.6, block_add_threshold=0.25, decoded_token_threshold=0.5)
    ids = [row.ids for row in decode(lab, pipeline, model, PROMPTS)]
    assert ids == [row.ids for row in decode(lab, replace(pipeline, cache="off"), model, PROMPTS)]
    shares = {"block_add_threshold": 1.0, "decoded_token_threshold": 1.0, "skip_threshold": 0.6}
    alone = decode(lab, D2F(block_length=8, **shares), model, PROMPTS, stop=())
    rule = {"quota": "dynamic", "threshold": 0.6}
    blocks = decode(lab, Blocks(block_length=8, **rule), model, PROMPTS, stop=())
    for one, other in zip(alone, blocks, strict=True):
        assert (one.ids, one.commits, one.forwards) == (other.ids, other.commits, other.forwards)


@pytest.mark.parametrize("folder", ["sdar", "a2d_qwen2", "fast_dllm_v2", "llada2"])
def test_the_states_of_d2fs_blocks_are_of_the_models_blocks(lab, folder):
    """A block that holds the end of the prompt is decoded as soon as its part of the canvas is."""
    model, length, canvas = golden.model_in(GOLDEN / folder, SHARP), 8, 20
    decoder, steps = D2F(block_length=length, skip_threshold=0.6, after_end="fill"), []
    for prompt in PROMPTS:
        origins = {"prompt": len(prompt), "column_0": 0, "padded_prompt": len(prompt) % length}
        first = (len(prompt) - origins[model.layout.blocks_from]) % length
        blocks = [
            {p for p in range(canvas) if (p + first) // length == block}
            for block in range(-(-(first + canvas) // length))
        ]
        written = set()

        def observe(row, positions, ids, blocks=blocks, written=written):
            written.update(positions)
            states = decoder.block_states(row)
            assert [state == "d" for state in states] == [block <= written for block in blocks]
            steps.append(states)

        decoder.decode(lab.Models(model), [prompt], canvas, lab.Stop(), [0], observe)
    assert any("d" in states and "b" in states for states in steps)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        SEPARATE,
        {"cache": "none", "after_end": "block"},
        {"quota": "dynamic", "threshold": 0.5, "after_end": "fill"},
        {**SEPARATE, "hand_over": True, "sub_block_length": 2, "cache": "block"},
    ],
)
def test_it_keeps_what_every_decoder_promises(settings):
    check_decoder(Blocks(block_length=4, **settings), 12)


def test_the_end_of_a_block_is_waited_for(lab):
    """An end token in the first of the block's slots ends at once, or when the block is full."""
    model = golden.model_in(GOLDEN / "llada2", 1.0)
    leftmost = Blocks(block_length=8, rank="leftmost")
    (whole,) = decode(lab, leftmost, model, PROMPTS[1:2], 16, stop=())
    end = whole.ids[0]
    for after_end, tokens in (("none", 1), ("block", 8), ("fill", 16)):
        (row,) = decode(lab, replace(leftmost, after_end=after_end), model, PROMPTS[1:2], 16, stop=(end,))
        assert (len(row.ids), row.useful, row.finish) == (tokens, 0, "stop")


def test_dllms_schedule_is_rounded_in_float32():
    assert linear_counts(8, 5) == [2, 2, 1, 2, 1]
    assert linear_counts(20, 8) == [2, 3, 3, 2, 2, 3, 2, 3]  # exactly: 2 3 2 3 2 3 2 3
    assert linear_counts(32, 12) == [3, 3, 3, 3, 3, 2, 3, 2, 3, 2, 3, 2]
    assert linear_counts(3, 8) == [1, 1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hand_over": True}, "store=separate"),
        ({"prefix": "recomputed"}, "store=separate"),
        ({"cache": "none", "store": "separate"}, "not with cache=none"),
        ({"steps": 4, "steps_per_block": 2}, "give one"),
        ({"quota": "entropy_sum", "bound": 1.0}, "rank=entropy"),
        ({"rank": "leftmost", "quota": "dynamic", "threshold": 0.5}, "rank=leftmost does not"),
        ({"cache": "dual"}, "exact, none, block"),
        ({"steps_per_block": 2, "quota": "threshold", "threshold": 0.5}, "is for schedules"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ValueError, match=message):
        Blocks(**settings)


def test_only_a_model_that_looks_back_hands_over():
    with pytest.raises(ValueError, match="sdar does not"):
        Blocks(hand_over=True, store="separate").check_layout(LAYOUTS["sdar"])


def test_the_published_samplers_are_replayed():
    """Ids, steps, forwards and positions fed of the traces in which the published code does what it says."""
    found = golden.replay_folder(GOLDEN)
    traces = json.loads((GOLDEN / "traces.json").read_text())["traces"]
    assert {method for _, method in found} == {trace["method"] for trace in traces}
    for (_, method), replays in found.items():
        assert len(replays) >= 8
        for replay in replays:
            assert replay is not None and replay.difference is None and replay.ids, method
            assert replay.positions is (None if method == "open_dcoder" else True)


@pytest.mark.parametrize("folder", expected_in(GOLDEN), ids=lambda path: path.name)
def test_logits_of_a_folder(folder):
    furthest, compared = check_logits(folder)
    assert furthest <= CLOSE and compared
