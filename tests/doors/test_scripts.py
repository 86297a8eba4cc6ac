"""The shell scripts: one runs at a small limit, all can be read by bash and name figures that exist."""

import re
import shutil
import subprocess

import pytest

from unmask.paths import ROOT

SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_and_names_a_figure_that_exists(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    for name in re.findall(r"(?:figure\.sh\"? | figure=)(\w+)(?![\w=])", script.read_text()):
        assert (ROOT / "eval_config" / "figure" / f"{name}.yaml").exists()


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_a_figure_script_makes_its_runs_and_draws_them(tmp_path):
    small = [
        "limit=1",
        "warm_up=0",
        "threads=1",
        "task.max_new_tokens=64",
        f"results={tmp_path}",
        "arm=one,apd",
        "decoder.mixture_weight=1.0",
    ]
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "fig3.sh", *small], cwd=ROOT, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figures" / "fig3.png").exists() and len(list(tmp_path.glob("*/run.json"))) == 2
    assert not subprocess.run(["git", "diff", "--quiet", "figures/fig3.png"], cwd=ROOT).returncode
