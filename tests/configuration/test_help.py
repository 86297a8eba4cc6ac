"""--help: every setting with its meaning, for the decoder that is asked about."""

import ast
import subprocess
import sys

import pytest

import bench
import demo
import eval as eval_door
import report
from unmask.configuration.composition import composed
from unmask.configuration.help import OBJECTIVES, class_comments, help_text
from unmask.paths import ROOT
from unmask.training.objectives import OBJECTIVES as CLASSES

DOORS = {"eval": eval_door, "bench": bench, "demo": demo, "report": report}


@pytest.mark.parametrize("name", DOORS)
def test_every_setting_is_told_with_its_meaning(name):
    text = help_text(name, DOORS[name].__doc__, [])
    lines = text.splitlines()
    for key in composed(name, []):
        if key not in ("model", "models", "decoder", "task", "draw", "arms", "grid", "setting"):
            found = [i for i, line in enumerate(lines) if line.strip().startswith(f"{key}=")]
            assert found, key
            told = lines[found[0]].partition("=")[2].split(maxsplit=1)
            assert len(told) > 1 or lines[found[0] + 1].startswith(" " * 30), f"{key} has no meaning"


def test_the_settings_are_those_of_the_decoder_that_is_asked_about():
    text = help_text("eval", "", ["decoder=d2f", "decoder.skip_threshold=0.5", "figure=fig2", "seed=0,1"])
    assert "decoder.skip_threshold=0.5" in text and "mixture_weight=" not in text
    assert "masks whose token is likelier than this are committed" in text


def test_training_tells_every_objective_and_its_options():
    text = help_text("train", "", ["recipe=tiny_llada"])
    for name, objective in CLASSES.items():
        for field in objective.Options.__dataclass_fields__:
            assert f"objective={name}" in text and field in text, (name, field)
    assert {path.stem for path in OBJECTIVES.glob("*.py")} >= set(CLASSES)


def test_comments_stand_behind_or_above_a_field(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "class A:\n    a: int = 1  # one\n    # two\n    # lines\n    b: int = 2\n    c: int = 3\n"
    )
    assert ast.parse(file.read_text())
    assert class_comments(file, "A") == {"a": "one", "b": "two lines", "c": ""}


@pytest.mark.parametrize("name", [*DOORS, "train"])
def test_help_loads_no_torch(name):
    """So that it answers at once."""
    program = f"""
import runpy, sys
sys.argv = ["{name}.py", "--help"]
runpy.run_path("{name}.py", run_name="__main__")
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
