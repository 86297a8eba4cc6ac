"""Random malformed settings end in a message that names something given, never in a traceback."""

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.config import ROOT
from unmask.settings import recipe
from unmask.tasks import check_task

NAMES = """model auxiliary drafter decoder task seed batch_size device dtype threads compile limit warm_up
    shard model.path model.kind model.end_tokens model.temperature model.adapter model.schedule
    auxiliary.kind decoder._target_ decoder.name decoder.mixture_weight decoder.kv_window
    decoder.max_lookahead decoder.chunk decoder.coupling decoder.temperature decoder.top_p decoder.top_k
    task.stop task.budget task.limit task.num_fewshot task.subset_seed task.split task.metric task.name
    task.system_prompt arms arm draw"""
WORDS = """1 -1 0 0.5 -0.5 1e400 nan null true false [] [null] [1] {} {a:1} abc '' 1/2 gumbel . apd confidence
    tiny_dream none os.path pathlib.Path 99999999999999999999"""
KEYS, VALUES = NAMES.split(), WORDS.split()


@pytest.fixture(scope="module")
def composed():
    with initialize_config_dir(str(ROOT / "eval_config"), version_base=None):
        yield lambda overrides: compose("eval", overrides)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pairs=st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), min_size=1, max_size=2))
def test_malformed_settings_are_refused_in_words(composed, pairs):
    overrides = [f"{key}={value}" for key, value in pairs]
    try:
        cfg = composed(overrides)
    except Exception:  # whatever composition raises, the door turns into a message (test_bad_input.py)
        return
    try:
        found = recipe(cfg)
        check_task(cfg.task)
    except ValueError as error:
        assert str(error)
    else:
        assert found["roles"]
