"""LLaDA: the published layout of the 8B and the options that are refused."""

import pytest
import torch

from llada import LLaDAConfig, LLaDAModelLM
from unmask.models.bidirectional import published_shapes

PUBLISHED = {
    "d_model": 4096,
    "n_layers": 32,
    "n_heads": 32,
    "n_kv_heads": 32,
    "mlp_hidden_size": 12288,
    "mlp_ratio": 4,
    "vocab_size": 126464,
    "embedding_size": 126464,
    "max_sequence_length": 4096,
    "rope": True,
    "rope_theta": 500000.0,
    "rope_full_precision": True,
    "rms_norm_eps": 1e-5,
    "weight_tying": False,
    "activation_type": "silu",
    "alibi": False,
    "alibi_bias_max": 8.0,
    "attention_dropout": 0.0,
    "attention_layer_norm": False,
    "attention_layer_norm_with_affine": True,
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "embedding_dropout": 0.0,
    "residual_dropout": 0.0,
    "include_bias": False,
    "include_qkv_bias": False,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "multi_query_attention": None,
    "scale_logits": False,
    "init_std": 0.02,
    "init_fn": "mitchell",
    "precision": "amp_bf16",
    "use_cache": False,
    "flash_attention": False,
    "mask_token_id": 126336,
    "eos_token_id": 126081,
    "pad_token_id": 126081,
}


def test_the_published_8b():
    config = LLaDAConfig(**PUBLISHED)
    assert (
        config.to_diff_dict().items() >= PUBLISHED.items()
        and PUBLISHED.items()
        >= {name: value for name, value in LLaDAConfig().to_diff_dict().items() if name in PUBLISHED}.items()
    )
    with torch.device("meta"):
        model = LLaDAModelLM(config)
    assert model.num_parameters() == 8_015_581_184
    block = ["q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out", "attn_norm", "ff_norm"]
    names = {f"model.transformer.blocks.{i}.{name}.weight" for i in range(32) for name in block}
    names |= {f"model.transformer.{name}.weight" for name in ("wte", "ln_f", "ff_out")}
    shapes = published_shapes(model)
    assert shapes.keys() == names
    assert shapes["model.transformer.blocks.31.ff_out.weight"] == (4096, 12288)
    assert shapes["model.transformer.ff_out.weight"] == (126464, 4096)


@pytest.mark.parametrize(
    "option",
    [
        {"alibi": True},
        {"rope": False},
        {"layer_norm_type": "default"},
        {"bias_for_layer_norm": True},
        {"block_type": "sequential"},
        {"include_bias": True},
        {"include_qkv_bias": True},
        {"activation_type": "swiglu"},
        {"attention_layer_norm": True},
        {"multi_query_attention": True},
        {"residual_dropout": 0.1},
        {"embedding_size": 126500},
        {"n_kv_heads": 5},
    ],
    ids=str,
)
def test_what_llama_blocks_cannot_express_is_refused_by_name(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        LLaDAConfig(**PUBLISHED | option)


def test_sizes_left_open_are_derived():
    config = LLaDAConfig(d_model=64, n_heads=4, mlp_hidden_size=None, mlp_ratio=3, vocab_size=99)
    assert (config.n_kv_heads, config.intermediate_size, config.embedding_size) == (4, 192, 99)
