"""The published tables: every configuration composes on published models, its rows find the published ones,
and one cell runs from a fake Hub to the table."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from huggingface_hub import constants
from omegaconf import OmegaConf

import eval as eval_door
import report
from unmask.configuration.settings import identity_of
from unmask.configuration.sweeps import settings
from unmask.paths import ROOT
from unmask.records.collection import Collection
from unmask.records.identity import canonical
from unmask.report.definition import Beside, define
from unmask.report.published import ALONE, _is_of, points, table_of

TEXT = (ROOT / "docs" / "papers.md").read_text()
FIGURES = re.findall(r"`python eval\.py figure=(\w+)", TEXT)
EVERY = sorted(path.stem for path in (ROOT / "eval_config" / "figure").glob("*.yaml"))
OURS = {"dflash_smollm2"}  # a model that is neither tiny nor of a paper

_spec = importlib.util.spec_from_file_location("make_hub", Path(__file__).with_name("make_hub.py"))
make_hub = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_hub)


@cache
def composed_figure(name):
    """(configurations, their identities) of all settings of a figure."""
    configs = settings([f"figure={name}"])
    return configs, [identity_of(cfg) for cfg in configs]


@pytest.mark.parametrize("name", EVERY)
def test_every_figure_composes_has_its_runs_once_and_can_be_drawn(name):
    configs, identities = composed_figure(name)
    assert len(set(map(canonical, identities))) == len(identities) > 1
    assert define(name, OmegaConf.to_container(configs[0].draw)).name == name


@pytest.mark.parametrize("name", EVERY)
def test_no_figure_mixes_tiny_and_published_models(name):
    # A role that the decoder has not is left out of the identity.
    used = {model["name"] for found in composed_figure(name)[1] for model in found["models"].values()}
    tiny = {
        model.startswith("tiny_")
        for model in used
        if model.startswith(("tiny_", "dream", "llada", "qwen", "d2f"))
    }
    assert len(tiny) <= 1 and (name not in FIGURES or True not in tiny)


def test_the_page_names_every_published_figure():
    assert len(FIGURES) == len(set(FIGURES)) == 17 and set(FIGURES) <= set(EVERY)


@pytest.mark.parametrize("name", FIGURES)
def test_settings_of_a_table_are_published_rows(name):
    """Every setting of ours that an arm's series names is of one published point of a measure."""
    configs, identities = composed_figure(name)
    definition = define(name, OmegaConf.to_container(configs[0].draw))
    beside = Beside(**definition.beside)
    if not beside.series:
        return
    every = points()
    theirs = every[(every.source == beside.paper) & every.figure.isin(beside.tables)]
    unmatched = []
    for cfg, identity in zip(configs, identities, strict=True):
        row = pd.Series({"arm": cfg.arm, "task": cfg.task.name})
        named = beside.series.keys() & {cfg.arm, cfg.arm.partition("_")[2]}
        fitting = [p for _, p in theirs.iterrows() if _is_of(row, p, beside, identity)]
        assert len({(p.figure, p.x_name) for p in fitting}) == len(fitting), cfg.arm
        if named and not fitting:
            unmatched.append(cfg.arm)
    assert set(unmatched) <= {"one"} or not unmatched, unmatched


def test_published_rows_stand_alone_without_runs():
    (cfg,) = settings(["figure=dparallel_table1", "arm=gsm8k_vanilla"])
    definition = define("x", OmegaConf.to_container(cfg.draw))
    table = table_of(definition, Collection(pd.DataFrame()))
    assert len(table) == 24 and set(table.ours) == {ALONE}
    assert table.published.tolist()[:2] == ["75.7", "72.9"] and table["published cost"][0] == "256 steps"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    home = tmp_path_factory.mktemp("hub")
    make_hub.make(home)
    make_hub.write_rows(home / "rows")
    return home


@pytest.fixture
def offline(monkeypatch):
    """offline(folder): what HF_HUB_OFFLINE=1 HF_HOME=folder set, in this process; and a wide terminal."""

    def at(folder):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        monkeypatch.setenv("COLUMNS", "160")

    return at


def small(tmp_path):
    return ["limit=2", "warm_up=0", "threads=1", f"results={tmp_path}"]


def test_a_cell_runs_from_the_hub_to_the_table(hub, offline, run_command, tmp_path):
    offline(hub)
    words = ["figure=dparallel_table1", "arm=gsm8k_dparallel", *small(tmp_path), "task.max_new_tokens=32"]
    words.append(f"task.data={hub}/rows/gsm8k")
    code, out, err = run_command(eval_door, *words)
    assert code == 0, err
    assert "Beside dParallel 2509.26488" in out and "76.1" in out and ALONE in out
    (mine,) = json.loads(out.splitlines()[-1]).values()
    assert mine["n"] == 2
    code, _, err = run_command(report, *words)
    assert code == 0, err
    table = pd.read_csv(tmp_path / "figures" / "dparallel_table1_published.csv")
    row = table[table.method.str.startswith("dParallel") & (table.task == "GSM8K-CoT 0-shot")].iloc[0]
    ours = float(row.ours.split()[0])
    assert row.difference == pytest.approx(ours - 76.1) and row.n == 2 and (table.ours == ALONE).sum() == 23


def test_without_the_network_one_line(offline, run_command, tmp_path):
    offline(tmp_path / "empty")
    words = ["model=llada", "task=gsm8k", "decoder=confidence", *small(tmp_path)]
    code, _, err = run_command(eval_door, *words)
    error, hint = err.strip().splitlines()[-2:]
    assert code == 2 and "cannot be read from the Hub" in error and "--help" in hint
    assert not list(tmp_path.glob("*/run.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arm"),
    [
        ("d2f_table1", "gsm8k_d2f"),
        ("d2f_table2", "math_d2f"),
        ("dflash_table1", "4b_autoregressive,4b_dflash"),
        ("fast_dllm_table2", "mbpp_both"),
        ("apd_fig3", "apd"),
    ],
)
def test_arms_of_every_paper_run_from_the_hub(hub, tmp_path, name, arm):
    """As typed: in a process of its own, with the variables of huggingface_hub."""
    data = {"gsm8k": "gsm8k", "math": "math500", "4b": "gsm8k", "mbpp": "mbpp", "apd": "gsm8k"}
    more = ["task=speed_gsm8k"] if name == "dflash_table1" else []
    words = [f"figure={name}", f"arm={arm}", *small(tmp_path), *more, "allow_code_execution=true"]
    words += ["task.max_new_tokens=64"] if name != "d2f_table2" else []
    words.append(f"task.data={hub}/rows/{data[arm.partition('_')[0]]}")
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(hub), "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "eval.py", *words]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, env=os.environ | offline)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Beside" in done.stdout
