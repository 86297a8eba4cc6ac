"""Open-dCoder (github pengzhangzhi/Open-dLLM): Qwen2.5-Coder without the causal mask, shifted.

Loads `fredzzp/open-dcoder-0.5B`, whose config.json is a plain Qwen2's: `model.layout=open_dcoder` says what
it is. Row i of the network predicts token i + 1.
"""

from typing import ClassVar

from transformers import Qwen2Config, Qwen2Model
from transformers.models.qwen2.modeling_qwen2 import Qwen2PreTrainedModel

from unmask.models.bidirectional import BidirectionalLM, PublishedConfig
from unmask.models.layout import Layout, Proportions, register


class OpenDCoderConfig(PublishedConfig, Qwen2Config):
    """Qwen2's fields; defaults are Qwen2.5-Coder 0.5B's. ValueError for sliding windows."""

    model_type = "qwen2"
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


class OpenDCoderLM(BidirectionalLM, Qwen2PreTrainedModel):
    config: OpenDCoderConfig
    backbone = Qwen2Model


LAYOUT = register(
    Layout(
        "open_dcoder",
        OpenDCoderConfig,
        OpenDCoderLM,
        lookback=1,
        mask_id=151_665,  # appended to the tokenizer, so it is its length
        by_name_only=True,
        proportions=Proportions(151_936, {"intermediate_size": 4864 / 896}, 7),
    )
)
