"""Published folders are read with no remote code; what cannot work is said before any weight is read."""

import hashlib
import json
import os
import re
import shutil
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from huggingface_hub.utils import are_progress_bars_disabled
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from dream import DreamConfig
from llada import LLaDAConfig
from unmask.models import adapters
from unmask.models.fingerprint import fingerprint
from unmask.models.loading import Source, check_vocabularies
from unmask.models.resources import (
    check_device,
    choose_device,
    choose_dtype,
    has_amx,
    rows_that_fit,
    set_for_cpu,
)
from unmask.models.settings import ModelConfig
from unmask.paths import ROOT

GOLDEN = ROOT / "tests" / "golden"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|beginoftext|>", "<|mask|>"]


@pytest.fixture
def published_dream(tmp_path):
    """A folder laid out as Dream-org/Dream-v0-Instruct-7B: vocab.json, merges.txt, classes that exist only in
    remote code."""
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "checkpoints" / "tiny_qwen_large")
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    words = sorted((w for w in model["vocab"] if w not in SPECIAL), key=model["vocab"].get)
    (tmp_path / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])) + "\n")
    added = {str(len(words) + i): {"content": s, "special": True} for i, s in enumerate(SPECIAL)}
    settings = {
        "tokenizer_class": "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "added_tokens_decoder": added,
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "mask_token": "<|mask|>",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((ROOT / "tests" / "golden" / "dream" / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "configuration_dream.DreamConfig",
        "AutoModel": "modeling_dream.DreamModel",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(GOLDEN / "dream" / "model.safetensors")
    return tmp_path


def test_published_dream_folder_needs_no_remote_code(published_dream):
    source = Source(
        ModelConfig(name="dream", path=str(published_dream), kind="diffusion", end_tokens=["<|im_end|>"])
    )
    ids = source.tokenizer.encode("a = 127<|mask|>")
    assert [source.tokenizer.decode([i]) for i in ids] == ["a", " =", " ", "1", "2", "7", "<|mask|>"]
    assert {source.tokenizer.decode([i]) for i in source.end_ids} == {"<|endoftext|>", "<|im_end|>"}


def test_special_tokens_of_one_side_do_not_separate_vocabularies(published_dream, tmp_path):
    """Dream has Qwen's vocabulary and two special tokens more."""
    dream = Source(ModelConfig(name="dream", path=str(published_dream), kind="diffusion"))
    folder = tmp_path / "qwen"
    dream.tokenizer.save_pretrained(folder)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    config = Qwen2Config(vocab_size=320, intermediate_size=8, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        for tokens in (content.get("added_tokens"),):
            if tokens:
                content["added_tokens"] = [t for t in tokens if t["content"] not in SPECIAL[3:]]
        content.pop("added_tokens_decoder", None)
        content.pop("mask_token", None)
        (folder / name).write_text(json.dumps(content))
    qwen = Source(ModelConfig(name="qwen", path=str(folder), kind="causal"))
    assert len(qwen.tokenizer) < len(dream.tokenizer)
    check_vocabularies(dream, qwen)


def test_kind_must_be_the_models_own():
    with pytest.raises(ValueError, match="is a causal model"):
        Source(ModelConfig(name="x", path="checkpoints/tiny_qwen_large", kind="diffusion"))


def test_unknown_end_token():
    source = Source(
        ModelConfig(name="x", path="checkpoints/tiny_qwen_large", kind="causal", end_tokens=["<|eot|>"])
    )
    with pytest.raises(ValueError, match="eot"):
        _ = source.end_ids


def test_other_weights_are_another_run(models, tmp_path):
    folder = next(o for o in models if o.startswith("model.path")).partition("=")[2]
    source = Source(ModelConfig(name="x", path=folder, kind="diffusion"))
    before = source.fingerprint
    model = source.load(torch.device("cpu"), torch.float32, private=True)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.1)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{folder}/{name}", tmp_path)
    model.save_pretrained(tmp_path)
    assert Source(ModelConfig(name="x", path=str(tmp_path), kind="diffusion")).fingerprint != before


def test_the_fingerprint_reads_whole_files(tmp_path, monkeypatch):
    """One bit in the middle of a file larger than any buffer is another model; an unchanged file is read
    once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    weights = folder / "model.safetensors"
    content = bytearray(40 * 2**20)
    weights.write_bytes(content)
    before = fingerprint(folder)
    content[20 * 2**20] ^= 1
    weights.write_bytes(content)
    assert fingerprint(folder) != before
    digest, read = hashlib.file_digest, []
    monkeypatch.setattr(hashlib, "file_digest", lambda f, name: read.append(f.name) or digest(f, name))
    again = fingerprint(folder)
    assert not read
    (tmp_path / "cache" / "unmask" / "fingerprints.json").write_text("damaged")
    assert fingerprint(folder) == again and len(read) == 2


def test_a_model_is_loaded_once_for_all_who_use_it(models):
    folder = next(o for o in models if o.startswith("model.path")).partition("=")[2]
    settings = ModelConfig(name="x", path=folder, kind="diffusion")
    one, two = (Source(settings).load(torch.device("cpu"), torch.float32) for _ in range(2))
    assert one is two
    assert Source(settings).load(torch.device("cpu"), torch.float32, private=True) is not one


@pytest.fixture
def adapter(models, tmp_path):
    """adapter(target_modules) -> (model folder, adapter folder): LoRA of rank 2 with random weights."""
    folder = next(o for o in models if o.startswith("model.path")).partition("=")[2]

    def build(*targets):
        model = AutoModelForCausalLM.from_pretrained(folder)
        adapted = get_peft_model(
            model, LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False)
        )
        adapted.save_pretrained(tmp_path / "adapter")
        return folder, tmp_path / "adapter"

    return build


def test_an_adapter_is_merged_and_is_part_of_the_fingerprint(adapter):
    folder, lora = adapter("q_proj", "o_proj")
    plain = Source(ModelConfig(name="x", path=folder, kind="diffusion"))
    adapted = Source(ModelConfig(name="x", path=folder, kind="diffusion", adapter=str(lora)))
    assert adapted.fingerprint.startswith(f"{plain.fingerprint}+")
    one, other = (s.load(torch.device("cpu"), torch.float32) for s in (plain, adapted))
    assert type(one) is type(other)
    base, merged = one.state_dict(), other.state_dict()
    assert base.keys() == merged.keys()
    changed = {name.split(".")[-2] for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {"q_proj", "o_proj"}


def test_an_adapter_for_another_layout_is_refused_by_name(adapter):
    folder, lora = adapter("q_proj")
    config = json.loads((lora / "adapter_config.json").read_text())
    config["target_modules"] = ["q_proj", "attn_out", "ff_proj"]
    (lora / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="attn_out, ff_proj are not in the model"):
        Source(ModelConfig(name="x", path=folder, kind="diffusion", adapter=str(lora)))


def test_an_adapter_for_another_width_is_refused(adapter):
    folder, lora = adapter("q_proj")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({name: torch.zeros(2, 7)}, lora / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="takes 7 features and the model has 32 there"):
        Source(ModelConfig(name="x", path=folder, kind="diffusion", adapter=str(lora)))


def published_adapter(layers, width, narrow, layout):
    """{tensor: shape} of D2F's published adapters (rank 32), as their training code names them."""
    path = {
        "llada": "base_model.model.model.transformer.blocks.{}.{}",
        "dream": "base_model.model.model.layers.{}.self_attn.{}",
    }[layout]
    last = {"llada": "attn_out", "dream": "o_proj"}[layout]
    found = {}
    for layer in range(layers):
        for module in ("q_proj", "k_proj", "v_proj", last):
            name = path.format(layer, module)
            found[f"{name}.lora_A.weight"] = (32, width)
            found[f"{name}.lora_B.weight"] = (narrow if module[0] in "kv" else width, 32)
    return found


@pytest.mark.parametrize(
    ("config", "layout", "shapes", "tensors", "parameters"),
    [
        (LLaDAConfig(), "llada", (32, 4096, 4096), 256, 33_554_432),
        (DreamConfig(), "dream", (28, 3584, 512), 224, 20_185_088),
    ],
)
def test_published_d2f_adapters_fit_the_published_models(
    config, layout, shapes, tensors, parameters, tmp_path
):
    """Names, shapes and counts, on the meta device; every tensor finds its module."""
    published = published_adapter(*shapes, layout)
    assert len(published) == tensors
    assert sum(a * b for a, b in published.values()) == parameters
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    targets = ["q_proj", "k_proj", "v_proj", {"llada": "attn_out", "dream": "o_proj"}[layout]]
    LoraConfig(r=32, lora_alpha=32, target_modules=targets, base_model_name_or_path="x").save_pretrained(
        tmp_path
    )
    settings = adapters.translated(model, tmp_path)
    mapping = adapters.key_mapping(model)
    ours = {}
    for name, shape in published.items():
        for theirs, mine in mapping.items():
            name = re.sub(theirs, mine, name)
        ours[name] = shape
    with torch.device("meta"):
        adapted = get_peft_model(model, settings)
    found = {
        name.replace(".default", ""): tuple(p.shape)
        for name, p in adapted.named_parameters()
        if "lora" in name
    }
    assert found == ours


def test_a_published_adapter_is_added_where_it_belongs(tmp_path):
    """LLaDA's names are translated; weights become W + alpha/r B A."""
    folder = GOLDEN / "llada"
    base = AutoModelForCausalLM.from_pretrained(folder)
    width, layers = base.config.hidden_size, base.config.num_hidden_layers
    torch.manual_seed(0)
    tensors = {}
    for layer in range(layers):
        for module in ("q_proj", "attn_out"):
            name = f"base_model.model.model.transformer.blocks.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(4, width)
            tensors[f"{name}.lora_B.weight"] = torch.randn(width, 4)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "attn_out"]).save_pretrained(tmp_path)
    other = AutoModelForCausalLM.from_pretrained(folder)
    adapters.check(other, tmp_path)
    merged = adapters.merge(other, tmp_path).state_dict()
    for name, before in base.state_dict().items():
        layer, module = [*name.split("."), "", ""][2], name.split(".")[-2]
        published = {"q_proj": "q_proj", "o_proj": "attn_out"}.get(module)
        expected = before
        if published:
            key = f"base_model.model.model.transformer.blocks.{layer}.{published}"
            expected = before + 2 * tensors[f"{key}.lora_B.weight"] @ tensors[f"{key}.lora_A.weight"]
        torch.testing.assert_close(merged[name], expected)


def test_an_adapter_that_is_nowhere_is_said_before_anything_loads(models, monkeypatch):
    def unreachable(*arguments):
        raise OSError("no such repository")

    monkeypatch.setattr(adapters, "cached_file", unreachable)  # the Hub's client tries again for 20 seconds
    folder = next(o for o in models if o.startswith("model.path")).partition("=")[2]
    with pytest.raises(ValueError, match="adapter=no/where"):
        Source(ModelConfig(name="x", path=folder, kind="diffusion", adapter="no/where"))


def test_shapes_tell_what_a_forward_costs():
    shape = Source(ModelConfig(name="x", path="checkpoints/tiny_dream", kind="diffusion")).shape
    config = AutoConfig.from_pretrained(ROOT / "checkpoints" / "tiny_dream")
    assert (shape["layers"], shape["width"]) == (config.num_hidden_layers, config.hidden_size)
    assert shape["head_parameters"] == config.hidden_size * config.vocab_size
    assert 0 < shape["body_parameters"] < 3_000_000


def test_a_cpu_means_float32():
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert choose_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
    assert choose_dtype("fastest", torch.device("cuda")) == torch.bfloat16


@pytest.mark.parametrize(("flags", "amx"), [("avx512_bf16 amx_tile amx_bf16", True), ("avx512_bf16", False)])
def test_the_fastest_format_of_a_cpu_is_what_it_multiplies(flags, amx, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags} fsrm\n")
    assert has_amx(tmp_path / "cpuinfo") is amx and not has_amx(tmp_path / "none")
    monkeypatch.setattr("unmask.models.resources.has_amx", lambda: amx)
    expected = torch.bfloat16 if amx else torch.float32
    assert choose_dtype("fastest", torch.device("cpu")) == expected
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_device("cpu").type == "cpu"
    assert choose_dtype("auto", torch.device("mps")) == torch.bfloat16


def test_another_accelerator_is_named_and_refused_where_it_is_missing():
    assert choose_device("xpu").type == "xpu" and choose_device("cuda:1").index == 1
    for name in ("tpu", "meta", "[1]", ""):
        with pytest.raises(ValueError, match="must be auto, cpu, cuda, cuda:N, xpu or mps"):
            choose_device(name)
    with pytest.raises(ValueError, match="this machine has no XPU device"):
        check_device(torch.device("xpu"))
    assert check_device(torch.device("cpu")).type == "cpu"


def test_a_module_on_the_same_weights_takes_no_memory_of_its_own(models):
    (path,) = (word.partition("=")[2] for word in models if word.startswith("model.path="))
    source = Source(ModelConfig(name="dream", path=path, kind="diffusion"))
    plain = source.load(torch.device("cpu"), torch.float32)
    other = source.load(torch.device("cpu"), torch.float32, module="compiled")
    assert other is not plain and other is source.load(torch.device("cpu"), torch.float32, module="compiled")
    ours, theirs = (dict(model.named_parameters()) for model in (plain, other))
    assert ours.keys() == theirs.keys() and all(ours[name] is theirs[name] for name in ours)
    assert other.lm_head is not plain.lm_head


def test_a_large_model_says_what_it_takes_before_it_is_loaded(monkeypatch):
    """Of a Hub repository whose weights are not here: that they are fetched, with their progress bars."""
    source = object.__new__(Source)
    source.settings, source.folder, source.revision = ModelConfig("dream"), "Dream-org/Dream", "0" * 40
    monkeypatch.setattr(Source, "parameters", 7_615_616_512)
    fetched, slow = source.announced(torch.device("cpu"), torch.float32)
    assert fetched == "dream: fetching the weights of 7.6B parameters from the Hub"
    assert slow.startswith("dream: 7.6B parameters run on the CPU in float32, 30 GB; torch ")
    assert source.announced(torch.device("cuda"), torch.bfloat16) == [fetched]
    monkeypatch.setattr(Source, "parameters", 2_800_000)
    assert source.announced(torch.device("cpu"), torch.float32) == []
    asked = []
    monkeypatch.setattr("unmask.models.loading.cached_file", lambda folder, file, **_: asked.append(file))
    source._fetch()
    assert asked == ["model.safetensors.index.json", "model.safetensors"]
    assert not are_progress_bars_disabled()


@pytest.mark.parametrize("gigabytes, rows", [(24, 2), (40, 32), (80, 32), (141, 32)])
def test_batch_size_auto_fits_dream_into_a_gpu(gigabytes, rows):
    settings = SimpleNamespace(name="dream")
    main = SimpleNamespace(
        config=DreamConfig(), text_config=DreamConfig(), parameters=7_615_616_512, settings=settings
    )
    shape = {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "intermediate_size": 4864,
    }
    auxiliary = SimpleNamespace(
        config=Qwen2Config(num_key_value_heads=2, **shape), parameters=494_000_000, settings=settings
    )
    arguments = ([main, auxiliary], 600, 256, torch.device("cpu"), torch.bfloat16)
    assert rows_that_fit(*arguments, memory=int(gigabytes * 1e9)) == rows
    with pytest.raises(ValueError, match="do not fit in 16 GB"):
        rows_that_fit(*arguments, memory=int(16e9))


def test_a_program_on_a_cpu_sets_its_process_and_a_library_does_not(monkeypatch):
    name, cpu = "TRANSFORMERS_SDPA_FORCE_GQA", torch.device("cpu")
    monkeypatch.setenv(name, "")  # so that it is as before afterwards
    monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "unmask.quiet", raising=False)
    set_for_cpu(cpu)
    assert name not in os.environ
    monkeypatch.setitem(sys.modules, "unmask.quiet", ModuleType("quiet"))
    set_for_cpu(torch.device("cuda"))
    assert name not in os.environ
    set_for_cpu(cpu)
    assert os.environ[name] == "1"
    monkeypatch.setenv(name, "0")
    set_for_cpu(cpu)
    assert os.environ[name] == "0"
