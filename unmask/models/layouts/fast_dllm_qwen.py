"""Fast-dLLM v2 (arXiv 2509.26328): block-causal Qwen2.5 that still predicts the *next* token.

Loads `Efficient-Large-Model/Fast_dLLM_v2_1.5B` and `_7B`. Tensor names are Qwen2's.
"""

from typing import ClassVar

from transformers import Qwen2Config, Qwen2Model
from transformers.models.qwen2.modeling_qwen2 import Qwen2PreTrainedModel

from unmask.models.bidirectional import BidirectionalLM, PublishedConfig
from unmask.models.layout import Layout, Proportions, register


class FastDLLMQwenConfig(PublishedConfig, Qwen2Config):
    """Qwen2's fields and `bd_size`; defaults are the 1.5B's. ValueError for sliding windows."""

    model_type = "Fast_dLLM_Qwen"
    default_theta = 1_000_000.0
    supported: ClassVar = {"use_sliding_window": (False,)}

    vocab_size: int = 151_936
    hidden_size: int = 1536
    intermediate_size: int = 8960
    num_hidden_layers: int = 28
    num_attention_heads: int = 12
    num_key_value_heads: int | None = 2
    max_position_embeddings: int = 32_768
    tie_word_embeddings: bool = True
    bd_size: int = 32
    mask_token_id: int = 151_665


class Fast_dLLM_QwenForCausalLM(BidirectionalLM, Qwen2PreTrainedModel):
    config: FastDLLMQwenConfig
    backbone = Qwen2Model


LAYOUT = register(
    Layout(
        "Fast_dLLM_Qwen",
        FastDLLMQwenConfig,
        Fast_dLLM_QwenForCausalLM,
        lookback=1,
        attention="block_causal",
        blocks_from="column_0",
        mask_id=151_665,  # not in config.json
        block_field="bd_size",
        proportions=Proportions(151_936, {"intermediate_size": 8960 / 1536}, 6, head_dim=128),
    )
)
