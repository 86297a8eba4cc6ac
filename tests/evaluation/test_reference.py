"""The committed reference run is what this code and these checkpoints give, and the committed figures are
drawn from it."""

import subprocess

import pandas as pd
import pytest

import report
from unmask.config import ROOT
from unmask.evaluation import Evaluation
from unmask.records import Run
from unmask.records.table import table

REFERENCE = ROOT / "results" / "reference"
DOCUMENTS = 5
SETTINGS = [
    "model=tiny_dream decoder=leftright",
    "model=tiny_dream decoder=leftright decoder.tokens_per_step=4",
    "model=tiny_dream decoder=apd decoder.mixture_weight=0.1",
    "model=tiny_dream decoder=apd decoder.mixture_weight=0.7 decoder.kv_window=16 decoder.max_lookahead=40",
    "model=tiny_llada decoder=confidence decoder.steps=48",
    "model=tiny_llada decoder=leftright decoder.tokens_per_step=4",
    "model=tiny_qwen_large decoder=autoregressive",
    "model=tiny_qwen decoder=autoregressive task=chain_sum",
]


@pytest.fixture(scope="module")
def runs():
    return table(REFERENCE)[0]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_slice_of_the_reference_run_comes_out_again(setting, tmp_path):
    """Id for id, forward for forward. Another CPU rounds differently, which may turn an answer or two: hence
    the tolerance."""
    evaluation = Evaluation.of(*setting.split(), f"limit={DOCUMENTS}", f"results={tmp_path}")
    with evaluation.run:
        evaluation.score()
    recorded = {sample["doc_id"]: sample for sample in Run.read(REFERENCE / evaluation.folder.name).scored()}
    again = evaluation.run.scored()
    keys = ("prompt_hash", "ids", "forwards", "positions", "correct")
    same = [all(sample[key] == recorded[sample["doc_id"]][key] for key in keys) for sample in again]
    assert sum(same) >= DOCUMENTS - 2, same


@pytest.mark.parametrize("name", report.FIGURES)
def test_committed_figures_are_of_the_reference_run(name, runs):
    file = f"figures/{name}.csv"
    if subprocess.run(["git", "status", "--porcelain", file], cwd=ROOT, capture_output=True).stdout:
        pytest.skip(f"{file} was redrawn here, from other runs")
    drawn, rows = pd.read_csv(ROOT / file), report.select(name, runs)
    assert sorted(drawn.run) == sorted(rows.run)
    drawn, rows = drawn.set_index("run").sort_index(), rows.set_index("run").sort_index()
    for measure in ("n", "accuracy", "tokens_per_step", "tokens_per_second"):
        assert drawn[measure].tolist() == pytest.approx(rows[measure].tolist())


def test_reference_run_is_of_one_machine_and_a_clean_commit(runs):
    assert runs.hardware.nunique() == 1 and runs.commit.nunique() == 1
    assert not runs.commit.iloc[0].endswith("+") and set(runs.n) == {200}
