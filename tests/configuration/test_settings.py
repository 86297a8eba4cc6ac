"""Random malformed settings end in a message that names something given, never in a traceback."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.configuration.composition import composed
from unmask.configuration.settings import build_decoder, check_effects, identity_of, remarks, typed
from unmask.tasks import check_task

NAMES = """model auxiliary drafter decoder task seed batch_size device dtype threads compile limit warm_up
    shard model.path model.kind model.end_tokens model.temperature model.adapter model.schedule
    model.attention model.block_length force
    auxiliary.kind decoder._target_ decoder.name decoder.mixture_weight decoder.kv_window
    decoder.max_lookahead decoder.chunk decoder.coupling decoder.temperature decoder.top_p decoder.top_k
    task.stop task.max_new_tokens task.limit task.num_fewshot task.subset_seed task.split task.metric
    task.name task.system_prompt arms arm draw"""
WORDS = """1 -1 0 0.5 -0.5 1e400 nan null true false [] [null] [1] {} {a:1} abc '' 1/2 gumbel . apd confidence
    tiny_dream none os.path pathlib.Path 99999999999999999999"""
KEYS, VALUES = NAMES.split(), WORDS.split()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pairs=st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), min_size=1, max_size=2))
def test_malformed_settings_are_refused_in_words(pairs):
    try:
        cfg = composed("eval", [f"{key}={value}" for key, value in pairs])
        found = identity_of(cfg)
        check_task(cfg.task)
    except ValueError as error:
        assert str(error)
    else:
        assert found["roles"]


@pytest.mark.parametrize(
    ("overrides", "remark"),
    [
        (["model=tiny_dream", "decoder=apd"], None),
        (["model=tiny_d2f_dream", "decoder=d2f"], None),
        (["model=tiny_qwen_large", "decoder=autoregressive"], None),
        (
            ["model=tiny_d2f_llada", "decoder=threshold"],
            "trained with block_causal attention, .* shows it all",
        ),
        (["model=tiny_llada", "decoder=d2f", "force=true"], "with full attention, and decoder=d2f hides"),
        (
            ["model=tiny_d2f_dream", "decoder=d2f", "decoder.block_length=16"],
            "trained with blocks of 8, and decoder.block_length=16",
        ),
    ],
)
def test_what_is_unusual_is_said(overrides, remark):
    cfg = typed(composed("eval", overrides))
    found = remarks(cfg, build_decoder(cfg.decoder))
    assert len(found) == (remark is not None)
    assert remark is None or re.search(remark, found[0])


RANDOM = ["model=random", "auxiliary=random_causal"]


@pytest.mark.parametrize(
    ("command", "given", "idle"),
    [
        ("eval", ["model.temperature=0.5", "auxiliary=qwen_0.5b", "seed=3", "warm_up=0"], None),
        ("eval", ["device=cpu", "dtype=float32", "threads=2", "auxiliary=tiny_qwen"], None),  # as they are
        ("eval", ["figure=fig3", "limit=5", "auxiliary.path=x"], None),  # of one of its arms
        (
            "eval",
            ["model=tiny_qwen_large", "drafter=tiny_dflash", "decoder=dflash", "check_lossless=3"],
            None,
        ),
        ("eval", ["decoder=leftright", "auxiliary=qwen_0.5b"], "auxiliary=qwen_0.5b"),
        ("eval", ["model=tiny_d2f_dream", "decoder=d2f", "model.temperature=0.5"], "model.temperature=0.5"),
        ("eval", ["decoder=leftright", "auxiliary.path=x"], None),
        ("eval", ["decoder=leftright", "check_lossless=3"], "check_lossless=3"),
        ("eval", ["seed=0,1", "mc_samples=64"], "mc_samples=64"),
        ("eval", ["setting=x"], "setting=x"),
        ("eval", ["task=lm_eval", "task.name=piqa", "mc_samples=64"], None),
        ("eval", ["task=lm_eval", "task.name=piqa", "mc_samples=64", "model=tiny_qwen"], "mc_samples=64"),
        ("eval", ["task=lm_eval", "task.name=piqa", "decoder=leftright"], "decoder=leftright"),
        ("report", ["figure=fig3", "trace=true", "published=false"], None),
        ("demo", ["document=3", "task.subset_seed=1", "limit=9"], None),
        ("demo", ["trace=true"], "trace=true"),
        ("demo", ["shard=1/2"], "shard=1/2"),
        ("demo", ["task.metric=null"], "task.metric=null"),
        ("bench", ["task=chain_sum", "limit=20", "batch_size=2"], None),
        ("bench", ["prompt_length=30"], "prompt_length=30"),
        ("bench", ["warm_up=0"], "warm_up=0"),
        ("bench", [*RANDOM, "prompt_length=30", "task.max_new_tokens=64", "model.width=128"], None),
        ("bench", [*RANDOM, "task.prompt=text"], "task.prompt=text"),
    ],
)
def test_a_setting_that_a_command_does_not_read_is_refused(command, given, idle):
    if idle:
        with pytest.raises(ValueError, match=f"^{re.escape(idle)}: has no effect with these settings of"):
            check_effects(command, given)
    else:
        check_effects(command, given)


def test_what_is_wrong_in_another_way_is_left_to_its_own_message():
    check_effects("eval", ["decoder.mixture_weight=7"])
    check_effects("eval", ["nope=1"])
