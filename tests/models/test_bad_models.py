"""Model settings that cannot work are one ValueError that names the setting, before any memory is taken."""

import json
import shutil

import pytest
import torch

from unmask.models import random_weights
from unmask.models.adapters import adapter_folder
from unmask.models.loading import Source
from unmask.models.settings import ModelConfig, RandomModel
from unmask.paths import ROOT

LONG = "x" * 5000


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("package:os", "path=package:os: is a single module"),
        ("package:sys", "path=package:sys: is a single module"),
        ("package:.x", "path=package:.x: must be package:NAME"),
        ("package:nope.x", "path=package:nope.x: must be package:NAME"),
        ("package:", "must be package:NAME"),
        ("package:__main__", "must be package:NAME"),
        (f"package:{LONG}.x", "must be package:NAME"),
        (LONG, "path=xxx.*cannot be a folder .File name too long"),
        ("README.md", "path=README.md: is a file"),
        ("docs", "path=docs: the folder has no config.json"),
        ("nowhere/at/all", "path=nowhere/at/all: is no local folder"),
    ],
    ids=lambda text: text[:24],
)
def test_paths(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        Source(ModelConfig(name="x", path=path, kind="causal"))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "content", ["", "[]", "3", "{}", '{"model_type": 3}', '{"model_type": []}', '{"model_type": "nope"}']
)
def test_damaged_and_unknown_configs(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=f"path={tmp_path}: config.json"):
        Source(ModelConfig(name="x", path=str(tmp_path), kind="causal"))


def test_an_unknown_model_type_is_said_with_the_known_ones(tmp_path):
    folder = shutil.copytree(ROOT / "checkpoints" / "tiny_dream", tmp_path / "other")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "mdlm"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"model_type=mdlm. Known are Dream, llada .*dream/__init__.py"):
        Source(ModelConfig(name="x", path=str(folder), kind="diffusion"))


def test_an_adapter_of_an_impossible_name():
    with pytest.raises(ValueError, match="adapter=xxx.*cannot be a folder"):
        adapter_folder(LONG, ROOT)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"width": 0}, "width=0"),
        ({"width": -64}, "width=-64"),
        ({"width": 100}, "width=100"),
        ({"width": 64 * 10**9}, "width=64000000000.* need .* GB"),
        ({"depth": 0}, "depth=0"),
        ({"depth": -1}, "depth=-1"),
        ({"depth": 10**9}, "depth=1000000000.* need .* GB"),
        ({"vocabulary": 0}, "vocabulary=0"),
        ({"vocabulary": -5}, "vocabulary=-5"),
        ({"vocabulary": 10**9}, "vocabulary=1000000000 need .* GB"),
        ({"layout": "gpt"}, "layout=gpt"),
    ],
)
def test_random_models(setting, message, monkeypatch):
    monkeypatch.setattr(
        random_weights.AutoModelForCausalLM, "from_config", lambda *a, **k: pytest.fail("memory was taken")
    )
    with pytest.raises(ValueError, match=message):
        random_weights.random_model(RandomModel(name="random", kind="diffusion", **setting))


@pytest.mark.parametrize("layout", random_weights.PROPORTIONS)
def test_the_smallest_random_model(layout):
    settings = RandomModel(name="random", kind="x", layout=layout, width=64, depth=1, vocabulary=2)
    assert random_weights.random_model(settings)(torch.zeros(1, 2, dtype=torch.long)).logits.shape == (
        1,
        2,
        2,
    )
