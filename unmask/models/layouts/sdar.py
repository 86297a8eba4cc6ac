"""SDAR (arXiv 2510.06303): block-causal Qwen3, unshifted, prompt included.

Loads `JetLM/SDAR-1.7B-Chat`, `-4B-`, `-8B-` (blocks of 4) and their -b8 to -b64 variants; TraDo's
folders are of the same layout. Tensor names are Qwen3's. The 30B-A3B, a mixture of experts, is not supported.
"""

from typing import ClassVar

from transformers import Qwen3Config, Qwen3Model
from transformers.models.qwen3.modeling_qwen3 import Qwen3PreTrainedModel

from unmask.models.bidirectional import BidirectionalLM, PublishedConfig
from unmask.models.layout import Layout, Proportions, register


class SDARConfig(PublishedConfig, Qwen3Config):
    """Qwen3's fields and `block_size`; defaults are SDAR 1.7B's. ValueError for sliding windows."""

    model_type = "sdar"
    default_theta = 1_000_000.0
    supported: ClassVar = {"use_sliding_window": (False,)}

    vocab_size: int = 151_936
    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 8
    head_dim: int = 128
    max_position_embeddings: int = 32_768
    tie_word_embeddings: bool = False
    block_size: int = 4
    mask_token_id: int = 151_669


class SDARForCausalLM(BidirectionalLM, Qwen3PreTrainedModel):
    config: SDARConfig
    backbone = Qwen3Model


LAYOUT = register(
    Layout(
        "sdar",
        SDARConfig,
        SDARForCausalLM,
        attention="block_causal",
        blocks_from="column_0",
        mask_id=151_669,
        block_field="block_size",
        proportions=Proportions(151_936, {"intermediate_size": 3}, 2, head_dim=128),
    )
)
