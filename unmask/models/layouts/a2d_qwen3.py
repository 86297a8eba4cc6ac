"""Tiny-A2D on Qwen3 (dllm, arXiv 2602.22661): an autoregressive model tuned as a denoiser, unshifted.

Loads `dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1` (full attention) and `-bd3lm-v0.1` (block-causal, blocks
of 32). Tensor names are Qwen3's.
"""

from typing import ClassVar

from transformers import Qwen3Config, Qwen3Model
from transformers.models.qwen3.modeling_qwen3 import Qwen3PreTrainedModel

from unmask.models.bidirectional import BidirectionalLM, PublishedConfig
from unmask.models.layout import Layout, Proportions, register


class A2DQwen3Config(PublishedConfig, Qwen3Config):
    """Qwen3's fields; defaults are Qwen3 0.6B's. ValueError for sliding windows."""

    model_type = "a2d-qwen3"
    default_theta = 1_000_000.0
    supported: ClassVar = {"use_sliding_window": (False,)}

    vocab_size: int = 151_936
    hidden_size: int = 1024
    intermediate_size: int = 3072
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 8
    head_dim: int = 128
    max_position_embeddings: int = 40_960
    tie_word_embeddings: bool = True
    mask_token_id: int = 151_669


class A2DQwen3LMHeadModel(BidirectionalLM, Qwen3PreTrainedModel):
    config: A2DQwen3Config
    backbone = Qwen3Model


LAYOUT = register(
    Layout(
        "a2d-qwen3",
        A2DQwen3Config,
        A2DQwen3LMHeadModel,
        blocks_from="padded_prompt",
        mask_id=151_669,  # appended to the tokenizer, so it is its length
        pad_is_special=True,
        proportions=Proportions(151_936, {"intermediate_size": 3}, 2, head_dim=128, heads_width=2),
    )
)
