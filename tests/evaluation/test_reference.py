"""A recorded slice is what this code and these checkpoints give; figures/ is drawn from the reference run.

The slice (tests/reference/slice.parquet) is of the shipped checkpoints. After a change of these, run this
file with RECORD_SLICE=1, which writes runs/slice, delete the old archive, and
`python -m unmask.records.archive runs/slice tests/reference/slice.parquet`.
"""

import os
import re
import subprocess
from ast import literal_eval

import pandas as pd
import pytest

from unmask.evaluation.evaluation import Evaluation
from unmask.paths import ROOT
from unmask.records import Run, config_hash, find_runs
from unmask.records.environment import machine
from unmask.report.lookup import FIGURES

REFERENCE = ROOT / "results" / "reference"
SLICE = ROOT / "tests" / "reference"
DOCUMENTS = 3
SETTINGS = [
    pytest.param("model=tiny_dream decoder=leftright", marks=pytest.mark.slow),
    "model=tiny_dream decoder=leftright decoder.tokens_per_step=4",
    "model=tiny_dream decoder=apd decoder.mixture_weight=0.1",
    "model=tiny_dream decoder=apd decoder.mixture_weight=0.7 decoder.kv_window=16 decoder.max_lookahead=40",
    "model=tiny_llada decoder=confidence decoder.steps=48",
    "model=tiny_llada decoder=threshold decoder.block_length=8 decoder.cache=dual",
    "model=tiny_dparallel_dream decoder=dparallel decoder.block_length=8",
    "model=tiny_dparallel_llada decoder=dparallel decoder.block_length=8",
    "model=tiny_d2f_dream decoder=d2f decoder.block_length=8",
    "model=tiny_d2f_llada decoder=d2f decoder.block_length=8 decoder.block_add_threshold=0.7",
    pytest.param("model=tiny_llada decoder=leftright decoder.tokens_per_step=4", marks=pytest.mark.slow),
    "model=tiny_qwen_large decoder=autoregressive",
    "model=tiny_qwen_large drafter=tiny_dflash decoder=dflash",
    "model=tiny_qwen decoder=autoregressive task=chain_sum",
]


RESTRICTED = {
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
}  # make it another processor


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_recorded_slice_comes_out_again(setting, tmp_path):
    """Id for id, commit for commit, on the processor that made it.

    Another one rounds differently, which may turn an answer of the four, and no more.
    """
    again = os.environ.get("RECORD_SLICE")
    results = ROOT / "runs" / "slice" if again else tmp_path
    shared = [f"limit={DOCUMENTS}", f"results={results}", "warm_up=0", f"threads={2 if again else 1}"]
    evaluation = Evaluation.of(*setting.split(), *shared)
    with evaluation.run:
        evaluation.score()
    metric = evaluation.cfg.task.metric
    keys = evaluation.run.done
    if again:
        return
    as_recorded = config_hash(evaluation.identity | {"threads": 2})  # two threads wait for the other tests
    name = f"{evaluation.folder.name.rpartition('-')[0]}-{as_recorded}"
    recorded = Run.read(SLICE / name).scored(metric, keys)
    compared = ("prompt_hash", "ids", "commits", "forwards", "positions", "correct")
    again = evaluation.run.scored(metric)
    same = [all(ours[c] == theirs[c] for c in compared) for ours, theirs in zip(again, recorded, strict=True)]
    assert len(same) == DOCUMENTS
    alike = (
        recorded[0]["machine"].split(",")[0] == machine().split(",")[0] and not RESTRICTED & os.environ.keys()
    )
    assert sum(same) >= (DOCUMENTS if alike else DOCUMENTS - 1), same


@pytest.fixture(scope="module")
def reference():
    """The runs of the reference, and what cannot be read."""
    return find_runs(REFERENCE)


def test_every_run_of_the_reference_can_be_read(reference):
    runs, problems = reference
    assert not problems and len(runs) > 250
    for run in runs:
        assert len(run.scored(run.info["metric"])) == 200
        assert not any(sample["commit"].endswith("+") for sample in run.samples()), run.folder.name


def figures_of_the_reference():
    """The names in scripts/reference.sh."""
    script = (ROOT / "scripts" / "reference.sh").read_text()
    return [
        name for line in re.findall(r"^figures\+?=,?(\S+)", script, re.MULTILINE) for name in line.split(",")
    ]


def test_the_reference_script_names_figures():
    assert {"board", "fig2", "dflash_acceptance"} <= set(figures_of_the_reference()) <= set(FIGURES)


@pytest.mark.parametrize("name", figures_of_the_reference())
def test_committed_figures_are_of_the_reference_run(name, reference):
    file = f"figures/{name}.csv"
    if subprocess.run(["git", "status", "--porcelain", file], cwd=ROOT, capture_output=True).stdout:
        pytest.skip(f"{file} was redrawn here")
    drawn = pd.read_csv(ROOT / file)
    runs = {run.folder.name: run for run in reference[0]}
    for _, row in drawn.iterrows():
        summary = runs[row.run].info["summary"]
        for measure in ("n", "accuracy", "tokens_per_step", "positions_per_answer"):
            assert row[measure] == pytest.approx(summary[measure]), (row.run, measure)
        assert literal_eval(row.machines) == summary["machines"]
