"""Tiny-A2D on Qwen2 (dllm, arXiv 2602.22661): an autoregressive model tuned as a denoiser, unshifted.

Loads `dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1` (full attention) and `-bd3lm-v0.1`
(block-causal, blocks of 32). Tensor names are Qwen2's.
"""

from typing import ClassVar

from transformers import Qwen2Config, Qwen2Model
from transformers.models.qwen2.modeling_qwen2 import Qwen2PreTrainedModel

from unmask.models.bidirectional import BidirectionalLM, PublishedConfig
from unmask.models.layout import Layout, Proportions, register


class A2DQwen2Config(PublishedConfig, Qwen2Config):
    """Qwen2's fields; defaults are Qwen2.5 0.5B's. ValueError for sliding windows."""

    model_type = "a2d-qwen2"
    default_theta = 1_000_000.0
    supported: ClassVar = {"use_sliding_window": (False,)}

    vocab_size: int = 151_936
    hidden_size: int = 896
    intermediate_size: int = 4864
    num_hidden_layers: int = 24
    num_attention_heads: int = 14
    num_key_value_heads: int | None = 2
    max_position_embeddings: int = 32_768
    tie_word_embeddings: bool = True
    mask_token_id: int = 151_665


class A2DQwen2LMHeadModel(BidirectionalLM, Qwen2PreTrainedModel):
    config: A2DQwen2Config
    backbone = Qwen2Model


LAYOUT = register(
    Layout(
        "a2d-qwen2",
        A2DQwen2Config,
        A2DQwen2LMHeadModel,
        blocks_from="padded_prompt",
        mask_id=151_665,  # appended to the tokenizer, so it is its length
        pad_is_special=True,
        proportions=Proportions(151_936, {"intermediate_size": 4864 / 896}, 7),
    )
)
