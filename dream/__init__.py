"""Dream (arXiv 2508.15487): Qwen2 without the causal mask, still predicting the *next* token.

Importing registers it with transformers. Loads `Dream-org/Dream-v0-Instruct-7B` (and -Base) with no remote
code: the tensor names are Qwen2's own.
"""

import torch
from transformers import Qwen2Config, Qwen2Model
from transformers.models.qwen2.modeling_qwen2 import Qwen2PreTrainedModel

from unmask.models.bidirectional import BidirectionalLM, PublishedConfig, register


class DreamConfig(PublishedConfig, Qwen2Config):
    """Qwen2's fields and `mask_token_id`; defaults are Dream 7B's. ValueError for sliding windows."""

    model_type = "Dream"
    default_theta = 1_000_000.0

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

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.use_sliding_window:
            raise ValueError("DreamConfig: use_sliding_window=True is not supported (Dream sees everything)")


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
    lookback = 1

    def align(self, hidden_states, position_ids):
        shifted = torch.cat((hidden_states[:, :1], hidden_states[:, :-1]), dim=1)
        if position_ids is None:
            return shifted
        # A left-padded row starts further right, where the state before its first token is that of a pad.
        return torch.where((position_ids == 0).unsqueeze(-1), hidden_states, shifted)


register(DreamConfig, DreamModel)
__all__ = ["DreamConfig", "DreamModel"]
