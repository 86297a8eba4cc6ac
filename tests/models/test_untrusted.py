"""What an incomplete, mistaken or hostile model folder can do: it is refused, or it stays text."""

import contextlib
import json
import re
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from unmask.evaluation.prompts import render
from unmask.models import adapters
from unmask.models.loading import Source
from unmask.models.settings import ModelConfig
from unmask.models.weights import load_weights
from unmask.paths import ROOT

CPU = torch.device("cpu")
TINY = ROOT / "checkpoints" / "tiny_qwen"


@pytest.fixture
def folder(tmp_path):
    """A copy of tiny_qwen, to be damaged."""
    return shutil.copytree(TINY, tmp_path / "model")


def source(path, **fields):
    return Source(ModelConfig(name="x", path=str(path), kind="causal", **fields))


def edit(folder, **fields):
    config = json.loads((folder / "config.json").read_text()) | fields
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))


# Weights


def test_a_tied_model_may_store_its_head_and_rotary_tables(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    plain = source(TINY).load(CPU, torch.float32)
    assert plain.config.tie_word_embeddings
    stored = source(folder).load(CPU, torch.float32)
    ids = torch.arange(9)[None]
    assert torch.equal(stored(ids).logits, plain(ids).logits)


def test_a_file_that_was_cut_short(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{folder}.*not fully covered"):
        source(folder).load(CPU, torch.float32)


def test_an_adapter_without_some_of_its_weights(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    adapters.check(AutoModelForCausalLM.from_pretrained(folder), file.parent)
    tensors = load_file(file)
    del tensors["base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"]
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"lacks model\.layers\.1\.self_attn\.q_proj\.lora_B\.weight"):
        source(folder, adapter=str(file.parent))


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_a_pickle_alone_is_refused_and_not_read(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save({"x": Bomb(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"only pickled weights \(pytorch_model.bin"):
        source(folder)
    with pytest.raises(ValueError, match="cannot be loaded"):  # as a folder of the Hub would be
        load_weights(type(source(TINY)._shell()), str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_pickle_beside_safetensors_is_not_read(folder, tmp_path):
    torch.save({"x": Bomb(tmp_path / "ran")}, folder / "pytorch_model.bin")
    source(folder).load(CPU, torch.float32, private=True)
    assert not (tmp_path / "ran").exists()


# Code and templates


@pytest.mark.parametrize("model", ["tiny_qwen", "tiny_dream"])
def test_code_that_a_folder_brings_is_not_run(model, tmp_path):
    folder = shutil.copytree(ROOT / "checkpoints" / model, tmp_path / "model")
    for name in ("config", "tokenizer_config"):
        (folder / f"evil_{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        target = f"evil_{name}.Evil"
        auto = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), target)
        content = json.loads((folder / f"{name}.json").read_text())
        content["auto_map"] = auto | {"AutoTokenizer": [target, target]}
        (folder / f"{name}.json").write_text(json.dumps(content))
    kind = "causal" if model == "tiny_qwen" else "diffusion"
    settings = ModelConfig(name="x", path=str(folder), kind=kind)
    Source(settings).load(CPU, torch.float32, private=True)
    assert not (tmp_path / "ran").exists()


def test_nobody_is_asked_whether_to_run_a_tokenizers_code(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *a: "y")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    content = json.loads((folder / "tokenizer_config.json").read_text()) | {
        "tokenizer_class": "EvilTokenizer",
        "auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    with contextlib.suppress(ValueError):  # refused, or read from tokenizer.json alone
        source(folder)
    assert not (tmp_path / "ran").exists()


def test_code_of_an_unknown_model_type_is_not_run(folder, tmp_path):
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    auto = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    edit(folder, model_type="evil", auto_map=auto)
    with pytest.raises(ValueError, match="model_type=evil"):
        source(folder)
    assert not (tmp_path / "ran").exists()


def test_remote_code_is_trusted_nowhere():
    files = [f for name in ("unmask", "dream", "llada") for f in (ROOT / name).rglob("*.py")]
    assert files and not [f for f in files if re.search(r"trust_remote_code\s*=\s*(?!False)", f.read_text())]


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch FILE').read() }}",
        "{{ raise_exception.__globals__['__builtins__']['open']('FILE', 'w') }}",
        "{{ open('/etc/hostname').read() }}",
        "{% include '/etc/hostname' %}",
        "{% import '/etc/hostname' as x %}{{ x }}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_chat_template_reaches_neither_python_nor_files(folder, template, tmp_path):
    """transformers renders templates in jinja's sandbox, without a loader."""
    file = tmp_path / "reached"
    (folder / "chat_template.jinja").write_text(template.replace("FILE", str(file)))
    with pytest.raises(ValueError, match="chat template"):
        render(source(folder).tokenizer, [{"role": "user", "content": "hello"}])
    assert not file.exists()


# Paths


@pytest.mark.parametrize(
    "path, message",
    [
        ("package:os", "os is a module and has no folder"),
        ("package:.x", "must be package:NAME"),
        ("package:nope.x", "must be package:NAME"),
        ("package:", "must be package:NAME"),
        ("package:no_such_package", "needs the Python packages no_such_package"),
        ("x" * 5000, "path=x+ cannot be read|is no local folder"),
        ("a/b/c", "no local folder and no name of a Hub repository"),
        ("README.md", "is a file: give its folder"),
        ("", "path= is empty"),
        ("a\0b", "cannot be read|no local folder"),
    ],
    ids=lambda value: value[:20],
)
def test_paths_that_lead_nowhere(path, message):
    with pytest.raises(ValueError, match=message) as error:
        source(path)
    assert str(error.value).startswith("model x: ")
