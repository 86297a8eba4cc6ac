"""Dream (arXiv 2508.15487): Qwen2 without the causal mask, still predicting the *next* token.

Importing registers it with transformers. Loads `Dream-org/Dream-v0-Instruct-7B` (and -Base) with no remote
code: the tensor names are Qwen2's own.
"""

from typing import ClassVar

from transformers import Qwen2Config, Qwen2Model
from transformers.models.qwen2.modeling_qwen2 import Qwen2PreTrainedModel

from unmask.models.bidirectional import BidirectionalLM, PublishedConfig
from unmask.models.layout import Layout, Proportions, register


class DreamConfig(PublishedConfig, Qwen2Config):
    """Qwen2's fields and `mask_token_id`; defaults are Dream 7B's. ValueError for sliding windows."""

    model_type = "Dream"
    default_theta = 1_000_000.0
    supported: ClassVar = {"use_sliding_window": (False,)}

    vocab_size: int = 152064
    hidden_size: int = 3584
    intermediate_size: int = 18944
    num_hidden_layers: int = 28
    num_attention_heads: int = 28
    num_key_value_heads: int | None = 4
    max_position_embeddings: int = 131072
    mask_token_id: int = 151666
    pad_token_id: int | None = 151643
    bos_token_id: int | None = 151643
    eos_token_id: int | list[int] | None = 151643


class DreamModel(BidirectionalLM, Qwen2PreTrainedModel):
    """Dream with aligned logits: `logits[i]` predicts token i, from the hidden state at i-1 (0: from its
    own).

    `lookback` is 1: to predict position i in a cached forward, i-1 must be fed too, since a cache holds keys
    and values but no hidden states. The first *fed* position thus has no predictor; unless it is position 0,
    its row is meaningless (it repeats the prediction of the position after it).

    The weight names are Qwen2's: `DreamModel.load_state_dict(qwen.state_dict())` starts from a causal
    Qwen2ForCausalLM.
    """

    config: DreamConfig
    backbone = Qwen2Model


LAYOUT = register(
    Layout(
        "Dream",
        DreamConfig,
        DreamModel,
        lookback=1,
        mask_id=151_666,
        proportions=Proportions(152_064, {"intermediate_size": 18944 / 3584}, 7),
    )
)
__all__ = ["LAYOUT", "DreamConfig", "DreamModel"]
