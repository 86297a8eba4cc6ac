"""What an incomplete, mistaken or hostile model folder can do: it is refused, or it stays text."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from unmask.models import adapters
from unmask.models.loading import Source
from unmask.models.settings import ModelConfig
from unmask.paths import ROOT

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """A copy of tiny_qwen, to be damaged."""
    return shutil.copytree(ROOT / "checkpoints" / "tiny_qwen", tmp_path / "model")


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
    plain = source(ROOT / "checkpoints" / "tiny_qwen").load(CPU, torch.float32)
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


def test_pickled_weights_are_not_opened(folder):
    class Hostile:
        def __reduce__(self):
            return (exec, ("raise SystemExit('code ran')",))

    (folder / "model.safetensors").unlink()
    torch.save(Hostile(), folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="only pickled weights"):
        source(folder)


# Code and templates


def test_remote_code_is_not_run(folder):
    (folder / "modeling_x.py").write_text("raise SystemExit('code ran')")
    edit(
        folder,
        auto_map={"AutoConfig": "modeling_x.XConfig", "AutoModelForCausalLM": "modeling_x.X"},
    )
    source(folder).load(CPU, torch.float32)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch FILE').read() }}",
        "{{ raise_exception.__globals__['__builtins__']['open']('FILE', 'w') }}",
        "{% include 'FILE' %}",
        "{% set _ = messages.append(messages) %}",
    ],
)
def test_a_chat_template_reaches_neither_python_nor_files(folder, template, tmp_path):
    """transformers renders templates in jinja's sandbox, without a loader."""
    file = tmp_path / "reached"
    (folder / "chat_template.jinja").write_text(template.replace("FILE", str(file)))
    tokenizer = source(folder).tokenizer
    with pytest.raises(Exception, match=r"unsafe|undefined|no attribute|no loader|sandbox"):
        tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
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
