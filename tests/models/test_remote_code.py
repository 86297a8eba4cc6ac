"""What an untrusted checkpoint may do when it is loaded: bring tensors and texts, run nothing."""

import contextlib
import json
import re
import shutil

import pytest
import torch
from transformers import AutoTokenizer

from unmask.evaluation.prompts import render
from unmask.models.loading import Source
from unmask.models.settings import ModelConfig
from unmask.models.weights import load_weights
from unmask.paths import ROOT

TINY = ROOT / "checkpoints" / "tiny_dream"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(TINY, tmp_path / "model")


def source(folder):
    return Source(ModelConfig(name="x", path=str(folder), kind="diffusion"))


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_a_pickle_alone_is_refused_and_not_read(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save({"x": Bomb(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin"):
        source(folder)
    with pytest.raises(ValueError, match="cannot be loaded"):  # as a folder of the Hub would be
        load_weights(type(source(TINY)._shell()), str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_pickle_beside_safetensors_is_not_read(folder, tmp_path):
    torch.save({"x": Bomb(tmp_path / "ran")}, folder / "pytorch_model.bin")
    source(folder).load(torch.device("cpu"), torch.float32, private=True)
    assert not (tmp_path / "ran").exists()


def test_code_that_a_folder_brings_is_not_run(folder, tmp_path):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    for name, entry in {"config": "AutoConfig", "tokenizer_config": "AutoTokenizer"}.items():
        (folder / f"evil_{name}.py").write_text(code)
        content = json.loads((folder / f"{name}.json").read_text())
        target = f"evil_{name}.Evil"
        content["auto_map"] = {
            "AutoConfig": target,
            "AutoModel": target,
            "AutoModelForCausalLM": target,
            "AutoTokenizer": [target, target],
        }
        (folder / f"{name}.json").write_text(json.dumps(content))
        assert entry in content["auto_map"]
    source(folder).load(torch.device("cpu"), torch.float32, private=True)
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
    content = json.loads((folder / "config.json").read_text()) | {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},
    }
    (folder / "config.json").write_text(json.dumps(content))
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
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ raise_exception.__globals__['__builtins__']['open']('/etc/hostname').read() }}",
        "{{ open('/etc/hostname').read() }}",
        "{% include '/etc/hostname' %}",
        "{% import '/etc/hostname' as x %}{{ x }}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_hostile_chat_template_reaches_nothing(folder, template):
    (folder / "chat_template.jinja").write_text(template)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with pytest.raises(ValueError, match="chat template"):
        render(tokenizer, [{"role": "user", "content": "hello"}])
