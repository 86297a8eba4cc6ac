"""Dream: the published layout of the 7B, the shift, and the start from a causal Qwen2."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from dream import DreamConfig, DreamModel
from unmask.models.bidirectional import published_shapes

TINY = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": None,
}


@pytest.fixture
def pair():
    """A causal Qwen2 and the Dream that starts from its weights."""
    torch.manual_seed(0)
    qwen = Qwen2ForCausalLM(Qwen2Config(**TINY, rope_parameters={"rope_theta": 1e6, "rope_type": "default"}))
    dream = DreamModel(DreamConfig(**TINY))
    dream.load_state_dict(qwen.state_dict(), strict=True)
    return qwen.eval().requires_grad_(False), dream.eval().requires_grad_(False)


def test_the_published_7b():
    published = {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rope_theta": 1000000.0,
        "rope_scaling": None,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "mask_token_id": 151666,
        "pad_token_id": 151643,
        "bos_token_id": 151643,
        "eos_token_id": 151643,
        "use_sliding_window": False,
        "sliding_window": None,
    }
    config = DreamConfig(**published)
    assert config.to_diff_dict() == DreamConfig().to_diff_dict()
    assert config.rope_parameters == {"rope_theta": 1e6, "rope_type": "default"}
    with torch.device("meta"):
        model = DreamModel(config)
    assert model.num_parameters() == 7_615_616_512
    block = {f"self_attn.{p}_proj.{kind}" for p in "qkv" for kind in ("weight", "bias")}
    block |= {f"mlp.{p}_proj.weight" for p in ("gate", "up", "down")}
    block |= {"self_attn.o_proj.weight", "input_layernorm.weight", "post_attention_layernorm.weight"}
    names = {f"model.layers.{i}.{name}" for i in range(28) for name in block}
    names |= {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    assert published_shapes(model).keys() == names


def test_sliding_windows_are_refused():
    with pytest.raises(ValueError, match="use_sliding_window"):
        DreamConfig(**TINY, use_sliding_window=True)


def test_under_a_causal_mask_dream_is_the_qwen_it_came_from_one_position_later(pair):
    qwen, dream = pair
    x = torch.randint(0, 40, (2, 9))
    causal = torch.ones(9, 9, dtype=torch.bool).tril()[None, None].expand(2, -1, -1, -1)
    wanted, got = qwen(x).logits, dream(x, causal).logits
    torch.testing.assert_close(got[:, 1:], wanted[:, :-1], atol=1e-4, rtol=0)
    torch.testing.assert_close(got[:, 0], wanted[:, 0], atol=1e-4, rtol=0)  # repeats the first hidden state
    assert (dream(x).logits[:, 1:] - wanted[:, :-1]).abs().max() > 0.1  # and without it, it is not


def test_position_ids_continue_at_the_cache(pair):
    """Fed one at a time, each token attends to the cached ones and itself: the causal model, step by step."""
    qwen, dream = pair
    x = torch.randint(0, 40, (2, 9))
    cache, rows = None, []
    for i in range(9):
        out = dream(x[:, i : i + 1], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        rows.append(out.logits)
    torch.testing.assert_close(torch.cat(rows, 1), qwen(x).logits, atol=1e-4, rtol=0)


def test_the_last_position_needs_no_cache_beyond_its_lookback(pair):
    """The last k logits come from the k hidden states before them, however they are asked for."""
    _, dream = pair
    x = torch.randint(0, 40, (1, 9))
    out = dream(x, use_cache=True)
    out.past_key_values.crop(-2)  # keep 7, feed 7 (the predictor of 8) and 8
    last = dream(x[:, 7:], past_key_values=out.past_key_values, logits_to_keep=1).logits
    torch.testing.assert_close(last[:, 0], out.logits[:, 8], atol=1e-4, rtol=0)
