"""What a sweep expands to: the settings that `eval.py -m` would run, and a report reads."""

import sys

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from unmask.configuration.composition import recipe
from unmask.configuration.sweeps import expand, lists_allowed, resolve, settings
from unmask.paths import ROOT
from unmask.report.definition import define

FIGURES = sorted(path.stem for path in (ROOT / "eval_config" / "figure").glob("*.yaml"))


def test_a_grid_is_hydras_own(hydra):
    given = ["figure=fig2", "model=tiny_dream", "limit=5"]
    params = ["model=tiny_dream,tiny_llada", "decoder.tokens_per_step=1,2,3,4,5,6,7,8"]
    overrides = OverridesParser.create().parse_overrides([*params, *given])
    assert [expand(given)] == BasicSweeper.split_arguments(overrides, None)
    assert len(expand(given)) == 8


def test_the_commands_list_replaces_the_figures(hydra):
    configs = settings(["figure=fig4", "arm=one", "decoder.max_lookahead=null,2", "seed=3,4"])
    found = [(cfg.decoder.name, cfg.decoder.max_lookahead, cfg.seed) for cfg in configs]
    assert found == [(("leftright"), m, seed) for m in (None, 2) for seed in (3, 4)]


def test_arms_come_last_and_are_resolved(hydra):
    given = ["figure=fig6", "arm=qwen,careful", "task=chain_sum", "model=tiny_llada"]
    assert [lines[-2:] for lines in expand(given)] == [
        ["model=tiny_qwen", "decoder=autoregressive"],
        ["decoder=apd", "decoder.mixture_weight=0.1"],
    ]
    assert [cfg.model.name for cfg in settings(given)] == ["tiny_qwen", "tiny_llada"]
    assert not any(line.startswith("arm=") for lines in expand(given) for line in lines)


def test_arms_of_the_command_itself(hydra):
    arms = '+arms={a: "decoder=margin", b: "decoder=entropy decoder.steps=4"}'
    assert [cfg.decoder.name for cfg in settings([arms])] == ["margin", "entropy"]


def test_several_figures_are_one_sweep(hydra):
    given = ["limit=5", "figure=fig2,fig4", "model=tiny_dream"]
    assert expand(given) == [
        *expand(["limit=5", "model=tiny_dream", "figure=fig2"]),
        *expand(["limit=5", "model=tiny_dream", "figure=fig4"]),
    ]
    with pytest.raises(ValueError, match="give one here"):
        resolve(given)


def test_one_setting_of_a_running_sweep(hydra):
    given = ["figure=fig4", "arm=apd", "decoder.max_lookahead=4"]
    assert resolve(given) == [
        "figure=fig4",
        "decoder.max_lookahead=4",
        "decoder=apd",
        "decoder.mixture_weight=0.1",
    ]
    assert resolve(["seed=1"]) == ["seed=1"]


@pytest.mark.parametrize(
    "given, word",
    [
        (["figure=fig9"], "fig9"),
        (["figure=[fig2]"], "no name of a figure"),
        (["figure=fig6", "arm=nobody"], "arm=nobody: choose one of qwen_large"),
        (["arm=one"], "no arms here"),
        (["decoder=nothing"], "nothing"),
        (["decoder.no_such=1"], "no_such"),
        (["seed=interval(0,1)"], "sweep"),
        (["seed=[1"], "seed=[1"),
    ],
)
def test_what_is_wrong_is_said(hydra, given, word):
    with pytest.raises(ValueError, match=word.replace("[", r"\[")):
        settings(given)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "board")) for name in FIGURES]
)
def test_every_figure_composes_has_its_runs_once_and_can_be_drawn(hydra, name):
    configs = settings([f"figure={name}"])
    recipes = [str(recipe(cfg)) for cfg in configs]
    assert len(set(recipes)) == len(recipes) > 1
    assert define(name, OmegaConf.to_container(configs[0].draw)).name == name


def test_a_command_may_have_lists_without_a_multirun(monkeypatch):
    arguments = ["figure=fig3", "seed=1,2", "--cfg", "job", "task.stop=[a,b]", "x='1,2'"]
    monkeypatch.setattr(sys, "argv", ["eval.py", *arguments])
    with lists_allowed():
        assert sys.argv[1:] == [a for a in arguments if a != "seed=1,2"]
    assert sys.argv[1:] == arguments
    monkeypatch.setattr(sys, "argv", ["eval.py", "-m", *arguments])
    with lists_allowed():
        assert sys.argv[1:] == ["-m", *arguments]
