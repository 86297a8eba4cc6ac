"""What a sweep expands to: the settings that eval.py runs, and a report reads."""

import pytest
from omegaconf import OmegaConf

from unmask.configuration.sweeps import arm_choices, as_word, expand, is_list, settings


def test_a_grid_is_every_combination():
    found = [
        (cfg.model.name, cfg.decoder.tokens_per_step, cfg.limit)
        for cfg in settings(["figure=fig2", "limit=5"])
    ]
    assert found == [(model, k, 5) for model in ("tiny_dream", "tiny_llada") for k in range(1, 9)]


def test_the_commands_list_takes_the_place_of_the_figures():
    configs = settings(["figure=fig4", "arm=one", "decoder.max_lookahead=null,2", "seed=3,4"])
    found = [(cfg.decoder.name, cfg.decoder.max_lookahead, cfg.seed) for cfg in configs]
    assert found == [("leftright", m, seed) for m in (None, 2) for seed in (3, 4)]


def test_what_an_arm_sweeps_is_narrowed_there_and_not_given_to_arms_without_it():
    configs = settings(["figure=fig3", "decoder.mixture_weight=0.1,1.0"])
    found = [(cfg.decoder.name, cfg.decoder.get("mixture_weight")) for cfg in configs]
    assert found == [("leftright", None), ("apd", 0.1), ("apd", 1.0)]


def test_what_an_arm_says_once_wins_over_the_command():
    given = ["figure=fig6", "arm=qwen,careful", "task=chain_sum", "model=tiny_llada"]
    found = [(cfg.model.name, cfg.decoder.name, cfg.task.name) for cfg in settings(given)]
    assert found == [("tiny_qwen", "autoregressive", "chain_sum"), ("tiny_llada", "apd", "chain_sum")]
    assert not any(word.startswith("arm=") for words in expand(given) for word in words)


def test_an_arm_takes_a_key_of_the_grid_away():
    given = ["figure=parallelbench", "arm=klass,wino", "task.name=line_copy", "model=tiny_parallel_llada"]
    for more, temperature in ([], 1.0), (["decoder.temperature=0"], 0.0):
        found = [(cfg.decoder.name, cfg.decoder.get("temperature")) for cfg in settings([*given, *more])]
        assert found == [("klass", temperature), ("wino", None), ("wino", None)]


def test_arms_of_the_command_itself():
    arms = '+arms={a: "decoder=margin", b: "decoder=entropy decoder.steps=4"}'
    assert [cfg.decoder.name for cfg in settings([arms])] == ["margin", "entropy"]


def test_several_figures_are_one_sweep():
    given = ["limit=5", "figure=fig2,fig4", "model=tiny_dream"]
    assert expand(given) == [
        *expand(["limit=5", "model=tiny_dream", "figure=fig2"]),
        *expand(["limit=5", "model=tiny_dream", "figure=fig4"]),
    ]


def test_one_setting_is_a_sweep_of_one():
    assert expand(["seed=1", "~model@models.auxiliary"]) == [["seed=1", "~model@models.auxiliary"]]


@pytest.mark.parametrize("value", [None, True, 3, 0.1, "a b", 'say "x"', "a,b", "none", [1, "x y"], {"k": 2}])
def test_a_value_of_a_file_is_the_same_on_the_command_line(value):
    key = "arms" if isinstance(value, dict) else "task.stop" if isinstance(value, list) else "draw"
    word = f"{'+' * (key == 'arms')}{key}={as_word(value)}"
    (cfg,) = settings([word]) if key != "arms" else [None]
    if cfg is not None:
        found = OmegaConf.select(cfg, key)
        assert found == (["1", "x y"] if isinstance(value, list) else value)


def test_an_arms_lists_are_swept():
    assert arm_choices({"decoder": "apd", "seed": [0, 1]}) == {"decoder": ["apd"], "seed": ["0", "1"]}
    assert arm_choices("decoder=apd seed=0,1") == {"decoder": ["apd"], "seed": ["0", "1"]}
    with pytest.raises(ValueError, match="must be settings"):
        arm_choices(3)


@pytest.mark.parametrize(
    "given, word",
    [
        (["figure=fig9"], "fig9"),
        (["figure=[fig2]"], "no name"),
        (["figure=fig6", "arm=nobody"], "arm=nobody: choose of qwen_large"),
        (["arm=one"], "defines no arms"),
        (["decoder=nothing"], "nothing"),
        (["decoder.no_such=1"], "no_such"),
        (["seed=interval(0,1)"], "sweep"),
        (["seed=[1"], "seed=[1"),
        (["seed=range(0)"], "sweeps no value"),
        (["arms=3"], "arms"),
        (["figure=fig3", "arms.apd=3"], "must be settings"),
    ],
)
def test_what_is_wrong_is_said(given, word):
    with pytest.raises(ValueError, match=word.replace("[", r"\[")):
        settings(given)


def test_lists_are_told_from_values():
    assert [word for word in ("seed=1,2", "task.stop=[a,b]", "x='1,2'", "--cfg") if is_list(word)] == [
        "seed=1,2"
    ]
