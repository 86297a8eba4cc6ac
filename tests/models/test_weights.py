"""A folder whose file of weights and config.json do not agree is refused, by name."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from unmask.models.drafter import DFlashDraftModel
from unmask.models.loading import Source
from unmask.models.settings import ModelConfig
from unmask.models.weights import load_weights
from unmask.paths import ROOT

KINDS = {
    "tiny_dream": "diffusion",
    "tiny_llada": "diffusion",
    "tiny_qwen": "causal",
    "tiny_dflash": "drafter",
}


def edited(tmp_path, name, edit=None, **config):
    """A copy of a checkpoint with edited tensors (`edit(tensors)`) and fields of config.json."""
    folder = tmp_path / name
    shutil.copytree(ROOT / "checkpoints" / name, folder)
    if edit:
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    fields = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def load(folder):
    return source(folder).load(torch.device("cpu"), torch.float32, private=True)


def source(folder):
    return Source(ModelConfig(name="x", path=str(folder), kind=KINDS[folder.name]))


@pytest.mark.parametrize("name", KINDS)
def test_checkpoints_have_all_their_weights(name):
    load(ROOT / "checkpoints" / name)


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_tensor_is_named(name, tmp_path):
    def edit(tensors):
        del tensors[sorted(k for k in tensors if "q_proj" in k)[0]]

    folder = edited(tmp_path, name, edit)
    with pytest.raises(ValueError, match=rf"{folder}.*lacks 1 tensor \(.*layers\.0\.self_attn\.q_proj"):
        source(folder)


@pytest.mark.parametrize("name", KINDS)
def test_an_unexpected_tensor_is_named(name, tmp_path):
    folder = edited(tmp_path, name, lambda tensors: tensors.update(surplus=torch.zeros(1)))
    with pytest.raises(ValueError, match=r"has no place for, 1 tensor \(surplus\)"):
        source(folder)


@pytest.mark.parametrize("name", ["tiny_dream", "tiny_qwen"])
def test_more_layers_than_the_file_has(name, tmp_path):
    with pytest.raises(ValueError, match=r"lacks \d+ tensors \(.*, \.\.\.\)"):
        source(edited(tmp_path, name, num_hidden_layers=12, layer_types=None, max_window_layers=12))


def test_a_tensor_of_another_shape_is_named(tmp_path):
    def edit(tensors):
        tensors["model.norm.weight"] = torch.zeros(3)

    with pytest.raises(ValueError, match=r"in another shape .* \(model.norm.weight\)"):
        source(edited(tmp_path, "tiny_dream", edit))


def test_a_stored_rotary_table_is_no_error(tmp_path):
    def edit(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(3)

    load(edited(tmp_path, "tiny_qwen", edit))


@pytest.mark.parametrize("family", ["dream", "llada"])
def test_a_tied_head_is_no_missing_tensor(family, tmp_path):
    folder = ROOT / "tests" / "golden" / family
    model = AutoModelForCausalLM.from_pretrained(folder, tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    load_weights(AutoModelForCausalLM, str(tmp_path))


def test_a_truncated_file_is_an_error_that_names_the_folder(tmp_path):
    folder = edited(tmp_path, "tiny_dream")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"{folder}: its weights cannot be loaded"):
        source(folder)


def test_the_drafter_class_itself_still_returns_a_model():
    assert isinstance(
        DFlashDraftModel.from_pretrained(ROOT / "checkpoints" / "tiny_dflash"), DFlashDraftModel
    )
