"""Every layout: the published code's logits, names, sizes and caches; and how one more is added."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Qwen2Config

from unmask.models import layouts
from unmask.models.bidirectional import published_shapes
from unmask.models.layouts import LAYOUTS, built_by, layout_of
from unmask.models.loading import Source, check_block_origin, shape_of
from unmask.models.settings import ModelConfig, RandomModel
from unmask.paths import ROOT
from unmask.records.flops import flops_of
from unmask.testing import logits as golden_logits
from unmask.testing.logits import expected_of

GOLDEN = Path(__file__).parents[1] / "golden" / "block_models"
NAMES = {
    "a2d_qwen2": "a2d-qwen2",
    "a2d_qwen3": "a2d-qwen3",
    "fast_dllm_v2": "Fast_dLLM_Qwen",
    "llada2": "llada2_moe",
    "llada_moe": "llada_moe",
    "open_dcoder": "open_dcoder",
    "sdar": "sdar",
}
PUBLISHED = {"sdar": "sdar", "fast": "Fast_dLLM_Qwen", "llada2": "llada2_moe", "open": "open_dcoder"}
CLOSE = {"atol": 1e-4, "rtol": 0}
COLUMNS = torch.arange(24)[None]


def load(folder, **options):
    layout = LAYOUTS[NAMES[folder]]
    model = layout.model.from_pretrained(GOLDEN / folder, mask_token_id=319, **options)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    """(model, expected tensors) of a tiny model."""
    return load(request.param), expected_of(GOLDEN / request.param)


def blocks_mask(block, columns=COLUMNS, end=24):
    return golden_logits.blocks_mask(block, columns, end)


# The published code's logits


def test_full_attention(golden):
    model, expected = golden
    wanted = expected.get("aligned_logits", expected.get("full.aligned_logits"))
    if wanted is None:
        pytest.skip("never computed with all columns visible")
    torch.testing.assert_close(model(expected["input_ids"]).logits, wanted, **CLOSE)


@pytest.mark.parametrize("block", [4, 8, 12])
def test_block_causal_attention(golden, block):
    model, expected = golden
    wanted = expected.get(f"block{block}.aligned_logits")
    if wanted is None:
        pytest.skip("not computed")
    torch.testing.assert_close(model(expected["input_ids"], blocks_mask(block)).logits, wanted, **CLOSE)


@pytest.mark.parametrize("block", [4, 8])
def test_the_last_block_over_a_cache_equals_no_cache(golden, block):
    """Exact: keys and values of a finished block do not depend on later ones."""
    model, expected = golden
    if model.layout.attention != "block_causal":
        pytest.skip("sees all")
    ids, first = expected["input_ids"], 24 - block
    before = blocks_mask(block, COLUMNS[:, :first], first)
    cache = model(ids[:, :first], before, use_cache=True).past_key_values
    fed = COLUMNS[:, first:]
    cached = model(ids[:, first:], blocks_mask(block, fed), past_key_values=cache, aligned=False).logits
    uncached = model(ids, blocks_mask(block), aligned=False).logits[:, first:]
    torch.testing.assert_close(cached, uncached, **CLOSE)
    for name in ("aligned_logits", "logits"):
        wanted = expected.get(f"block{block}_cached.{name}")
        if wanted is not None:
            torch.testing.assert_close(cached, wanted, **CLOSE)


@pytest.mark.parametrize("folder", ["a2d_qwen2", "a2d_qwen3", "llada_moe"])
def test_right_padding_is_invisible(folder):
    model, expected = load(folder), expected_of(GOLDEN / folder)
    ids = expected.get("right_padding.input_ids", expected["input_ids"])
    mask, wanted = expected["right_padding.attention_mask"], expected["right_padding.aligned_logits"]
    torch.testing.assert_close(model(ids, mask).logits[:, : wanted.size(1)], wanted, **CLOSE)


@pytest.mark.parametrize("folder", ["a2d_qwen2", "a2d_qwen3"])
def test_bd3lms_left_padded_blocks(folder):
    """7 pads, 9 columns of prompt, 8 new ones, blocks of 8: pads are no keys and no positions."""
    model, expected = load(folder), expected_of(GOLDEN / folder)
    ids, mask = expected["block.input_ids"], expected["block.attention_mask"][None, None]
    positions = expected["block.position_ids"]
    assert (mask[0, 0, 7:, 7:] == blocks_mask(8)[0, 0, 7:, 7:]).all()  # columns of the padded row
    logits = model(ids, mask, positions).logits
    torch.testing.assert_close(logits[:, 7:], expected["block.aligned_logits"], **CLOSE)
    cache = model(ids[:, :16], mask[..., :16, :16], positions[:, :16], use_cache=True).past_key_values
    last = model(ids[:, 16:], mask[..., 16:, :], positions[:, 16:], past_key_values=cache).logits
    torch.testing.assert_close(last, expected["block_cached.aligned_logits"], **CLOSE)
    assert model.layout.blocks_from == "padded_prompt" and model.layout.pad_is_special


def test_fast_dllm_v2_predicts_the_token_after_a_block_and_takes_subblocks():
    model, expected = load("fast_dllm_v2"), expected_of(GOLDEN / "fast_dllm_v2")
    ids = expected["input_ids"]
    raw = model(ids, blocks_mask(8), aligned=False).logits
    torch.testing.assert_close(raw, expected["block8.logits"], **CLOSE)
    torch.testing.assert_close(raw[:, 15], expected["block8_prefill_last.logits"], **CLOSE)
    cache = model(ids[:, :16], blocks_mask(8, COLUMNS[:, :16], 16), use_cache=True).past_key_values
    model(ids[:, 16:], past_key_values=cache)
    cache.crop(-4)
    fed = expected["subblock.input_ids"]
    sub = model(fed, past_key_values=cache, aligned=False).logits
    torch.testing.assert_close(sub, expected["subblock.logits"], **CLOSE)


def test_llada2_selects_the_published_experts():
    model, expected = load("llada2"), expected_of(GOLDEN / "llada2")
    chosen = []
    gate = model.model.layers[1].mlp.gate
    gate.register_forward_hook(lambda _, inputs, outputs: chosen.append(outputs[2]))
    model(expected["input_ids"], blocks_mask(8))
    assert torch.equal(chosen[0].sort(-1).values, expected["block8.layer1_expert_ids"][0])


def test_diffusion_gemma_is_transformers_own():
    layout, folder = LAYOUTS["diffusion_gemma"], GOLDEN / "diffusion_gemma"
    model, expected = layout.model.from_pretrained(folder).eval(), expected_of(folder)
    prompt, canvas = expected["prompt_ids"], expected["canvas_ids"]
    with torch.no_grad():
        first = model(input_ids=prompt, decoder_input_ids=canvas).logits
        guess = expected["self_conditioning_logits"]
        second = model(input_ids=prompt, decoder_input_ids=canvas, self_conditioning_logits=guess).logits
    torch.testing.assert_close(first, expected["logits"], **CLOSE)
    torch.testing.assert_close(second, expected["logits_self_conditioned"], **CLOSE)


# Published folders


def test_a_saved_model_has_the_published_names_and_loads_again(golden, tmp_path):
    model, expected = golden
    model.save_pretrained(tmp_path)
    folder = next(f for f, name in NAMES.items() if name == model.layout.name)
    published = load_file(GOLDEN / folder / "model.safetensors")
    saved = load_file(tmp_path / "model.safetensors")
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert saved.keys() == published.keys() == published_shapes(model).keys() - tied
    assert all(torch.equal(saved[name], tensor) for name, tensor in published.items())
    config, wanted = (json.loads((f / "config.json").read_text()) for f in (tmp_path, GOLDEN / folder))
    ours = {"auto_map", "layer_types", "dtype", "torch_dtype", "transformers_version", "mask_token_id"}
    if model.layout.by_name_only:
        ours.add("architectures")
    for name, value in wanted.items():
        assert name in ours or config.get(name) == value, name
    again = model.layout.model.from_pretrained(tmp_path)
    ids = expected["input_ids"]
    assert torch.equal(again(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    "name, layer, dense_layers, dense, routed",
    [  # of attention, router, norms and shared expert in every layer; of a dense one's own; of chosen experts
        (
            "llada_moe",
            4 * 2048**2 + 2 * 128 + 2 * 2048 + 64 * 2048,
            0,
            0,
            8 * 3 * 2048 * 1024,
        ),
        (
            "llada2_moe",
            2048 * (2 * 2048 + 2 * 512) + 2 * 128 + 2 * 2048,
            1,
            3 * 2048 * 5120,
            256 * 2048 + (8 + 1) * 3 * 2048 * 512,
        ),
    ],
)
def test_the_work_of_a_token_is_that_of_its_experts(name, layer, dense_layers, dense, routed):
    """Closed form of the published shapes: 1.4 B of 7.4 and 1.1 B of 16.3 B parameters, tables left out."""
    layout = LAYOUTS[name]
    config = layout.config()
    with torch.device("meta"):
        shape = shape_of(layout.model(config), config)
    layers = config.num_hidden_layers
    body = layers * layer + dense_layers * dense + (layers - dense_layers) * routed + 2048
    head = 157_184 * 2048
    assert shape == {"body_parameters": body, "head_parameters": head, "layers": layers, "width": 2048}
    assert 1.1e9 < body + head < 1.45e9
    sample = {"prompt_length": 10, "max_new_tokens": 6, "ids": [1] * 6}
    sample |= {"positions": {"denoiser": 32}, "forwards": {"denoiser": 2}}
    flops = 32 * (2 * body + 4 * layers * 2048 * 16) + 6 * 2 * head
    assert flops_of(sample, {"denoiser": shape}) == flops


def test_diffusion_gemmas_work_is_of_its_text_once():
    """Encoder and decoder share their weights; two of four experts work beside a dense MLP; no pictures."""
    model = LAYOUTS["diffusion_gemma"].model.from_pretrained(GOLDEN / "diffusion_gemma")
    norms, mlp = 64, 3 * 64 * 96
    experts = 2 * (64 * 64 + 64 * 32) + 4 * 64 + 4 + norms  # those chosen; the router and its scales
    sliding = 64 * (64 + 32 + 32 + 64) + 2 * 16  # the full layer's value is its key
    full = 64 * (128 + 32 + 128) + 2 * 32
    conditioning = mlp + norms
    body = sliding + full + 2 * (mlp + experts + 7 * norms) + norms + conditioning
    shape = shape_of(model, model.config.get_text_config(decoder=True))
    assert shape == {"body_parameters": body, "head_parameters": 320 * 64, "layers": 2, "width": 128}


@pytest.mark.parametrize(
    "name, fields, parameters",
    [
        ("Dream", {}, 7_615_616_512),
        ("a2d-qwen3", {}, 596_049_920),
        ("a2d-qwen3", {"tie_word_embeddings": False}, 751_632_384),
        ("a2d-qwen2", {}, 494_032_768),
        ("open_dcoder", {}, 494_032_768),
        ("Fast_dLLM_Qwen", {}, 1_543_714_304),
        (
            "Fast_dLLM_Qwen",
            {
                "hidden_size": 3584,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "intermediate_size": 18_944,
                "vocab_size": 152_064,
                "tie_word_embeddings": False,
            },
            7_615_616_512,
        ),
        ("sdar", {}, 2_031_739_904),
        ("sdar", {"tie_word_embeddings": True}, 1_720_574_976),
        (
            "sdar",
            {
                "hidden_size": 2560,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "intermediate_size": 9728,
            },
            4_411_424_256,
        ),
        ("llada_moe", {}, 7_356_880_896),
        ("llada2_moe", {}, 16_255_638_528),
    ],
)
def test_published_sizes(name, fields, parameters):
    """Defaults are a published model's."""
    with torch.device("meta"):
        model = LAYOUTS[name].model(LAYOUTS[name].config(**fields))
    assert model.num_parameters() == parameters


# Which layout a folder is of


def published_folder(tmp_path, folder, **fields):
    """A golden folder with the tiny family's tokenizer."""
    target = shutil.copytree(GOLDEN / folder, tmp_path / folder)
    AutoTokenizer.from_pretrained(ROOT / "checkpoints" / "tiny_qwen").save_pretrained(target)
    edit(target, **{"mask_token_id": 319} | fields)
    return target


def edit(folder, **fields):
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def source(path, kind="diffusion", **fields):
    return Source(ModelConfig(name="x", path=str(path), kind=kind, **fields))


@pytest.mark.parametrize("folder", NAMES)
def test_a_published_folder_is_loaded_as_what_it_is(folder, tmp_path):
    layout = LAYOUTS[NAMES[folder]]
    named = {"layout": "open_dcoder"} if folder == "open_dcoder" else {}
    found = source(published_folder(tmp_path, folder), attention=layout.attention, **named)
    model = found.load(torch.device("cpu"), torch.float32)
    assert found.layout is layout and type(model) is layout.model
    expected = expected_of(GOLDEN / folder)["input_ids"]
    assert torch.equal(model(expected).logits, load(folder)(expected).logits)
    assert found.shape["body_parameters"] > 0


def test_open_dcoder_is_causal_unless_the_model_says_otherwise(tmp_path):
    folder = published_folder(tmp_path, "open_dcoder")
    assert source(folder, "causal").layout is None
    assert source(folder, layout="open_dcoder").layout.lookback == 1


def test_dense_llada_and_llada_moe_share_a_model_type():
    moe = json.loads((GOLDEN / "llada_moe" / "config.json").read_text())
    dense = json.loads((GOLDEN.parent / "llada" / "config.json").read_text())
    assert moe["model_type"] == dense["model_type"] == "llada"
    assert (layout_of(moe).name, layout_of(dense).name) == ("llada_moe", "llada")
    with pytest.raises(ValueError, match="llada_moe"):
        LAYOUTS["llada"].config(**moe)


@pytest.mark.parametrize("folder, head", [("a2d_qwen3", "lm_head.weight")])
def test_a_tied_model_may_store_its_head(folder, head, tmp_path):
    target = published_folder(tmp_path, folder)
    tensors = load_file(target / "model.safetensors")
    tensors[head] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    model = source(target).load(torch.device("cpu"), torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    "folder, fields, settings, message",
    [
        ("sdar", {"model_type": "unheard_of"}, {}, "model_type=unheard_of.*sdar.*unmask/models/layouts"),
        ("sdar", {}, {"attention": "full"}, "attention=full must be block_causal"),
        ("sdar", {"use_sliding_window": True}, {"attention": "block_causal"}, "use_sliding_window=True"),
        ("llada2", {"score_function": "softmax"}, {"attention": "block_causal"}, "score_function='softmax'"),
        ("llada_moe", {"moe_router_enable_expert_bias": True}, {}, "moe_router_enable_expert_bias=True"),
        ("a2d_qwen3", {"vocab_size": 8}, {}, "lies beyond its vocabulary of 8: add mask_token_id"),
        ("sdar", {}, {"layout": "nope"}, "layout=nope: must be one of Dream, llada, a2d-qwen3"),
        ("sdar", {}, {"layout": "llada"}, "layout=llada is for model_type llada"),
    ],
    ids=str,
)
def test_what_cannot_work_is_said_before_any_weight_is_read(folder, fields, settings, message, tmp_path):
    target = published_folder(tmp_path, folder, **fields)
    (target / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=message):
        source(target, **settings)


def test_the_mask_id_is_the_tokenizers_where_config_json_names_none(tmp_path, monkeypatch):
    monkeypatch.setattr("unmask.models.loading.check_weights", lambda *args, **options: None)
    target = published_folder(tmp_path, "a2d_qwen3", mask_token_id=None, vocab_size=2048)
    found = source(target)
    assert found.config.mask_token_id == found.tokenizer.mask_token_id


def test_a_decoder_must_count_blocks_as_the_model_does(tmp_path):
    model = source(published_folder(tmp_path, "sdar"), attention="block_causal")
    check_block_origin(model, ("prompt", "column_0"))
    with pytest.raises(ValueError, match="counts blocks from column_0, and this decoder from prompt"):
        check_block_origin(model, ("prompt",))


@pytest.mark.parametrize("name", sorted(f.stem for f in (ROOT / "eval_config" / "model").glob("*.yaml")))
def test_every_configuration_says_what_its_layout_needs(name):
    from unmask.configuration.composition import composed
    from unmask.evaluation import setup  # noqa: F401  (adds the layout of model=ideal)

    settings = OmegaConf.to_object(composed("eval", [f"model={name}"]).model) if name != "none" else {}
    if not settings or isinstance(settings, RandomModel) or settings.kind != "diffusion":
        return
    published = PUBLISHED.get(name.split("_")[0].split(".")[0])
    layout = LAYOUTS[published] if published else None
    if layout and layout.attention == "block_causal":
        assert settings.attention == "block_causal"
        length = layout.block_length(layout.config())
        assert length in (None, settings.block_length)
    assert settings.layout is None or LAYOUTS[settings.layout].by_name_only


# One more


PAGE = (ROOT / "docs" / "extending.md").read_text()
NEW = next(text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "MineLM" in text)


def test_a_layout_is_one_file_one_line_and_one_yaml(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(NEW)
    monkeypatch.syspath_prepend(tmp_path)
    import mine

    monkeypatch.setitem(layouts.LAYOUTS, "mine", mine.LAYOUT)  # the line

    config = mine.MineConfig(
        vocab_size=2048,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=None,
    )
    folder = tmp_path / "weights"
    mine.MineLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(ROOT / "checkpoints" / "tiny_dream").save_pretrained(folder)

    from unmask.evaluation.evaluation import Evaluation

    configurations = tmp_path / "configurations"
    (configurations / "model").mkdir(parents=True)
    (configurations / "model" / "mine.yaml").write_text(
        'defaults: ["/schema@_here_": model]\n'
        f"name: mine\npath: {folder}\nkind: diffusion\nend_tokens: ['<|im_end|>']\n"
    )
    words = ["model=mine", "task=gsm_symbolic", "decoder=leftright", "limit=2", "task.max_new_tokens=8"]
    search = f"hydra.searchpath=[file://{configurations}]"
    evaluation = Evaluation.of(*words, search, f"results={tmp_path}", "threads=1", "warm_up=0")
    assert evaluation.main.layout is mine.LAYOUT
    evaluation.score()
    assert len(evaluation.run.done) == 2


def test_configurations_know_their_layout():
    assert built_by(Qwen2Config()) is None
    assert {built_by(layout.config()).name for layout in LAYOUTS.values()} == LAYOUTS.keys()
    assert "mine" not in LAYOUTS and "mine" not in sys.argv
