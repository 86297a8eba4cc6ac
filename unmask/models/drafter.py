"""DFlash's drafter (arXiv 2602.06036, sec. 3): a few Qwen3 blocks that fill a whole block of tokens in one
forward, from what a frozen causal target made of the text before it.

The hidden states of some of the target's layers are fused into one feature for each token. Every drafter
layer makes keys and values of these features with its own projections, and the tokens of the block attend to
them and to one another. So a drafter's context is a cache that is written from features (`context`), and its
forward is that of transformers' own blocks on top of it. Embedding and head are the target's; a drafter with
a draft vocabulary takes the head's rows of frequent ids alone (FR-Spec, arXiv 2502.14856; EAGLE-3,
2503.01840).
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3DecoderLayer,
    Qwen3PreTrainedModel,
    Qwen3RMSNorm,
    Qwen3RotaryEmbedding,
    apply_rotary_pos_emb,
)

ARCHITECTURE = "DFlashDraftModel"  # in config.json, as published
OTHERS = {
    "Qwen3DSparkModel": "its anchor's position predicts, too, and it has an embedding and a head of its own"
}


def is_drafter(config: PreTrainedConfig) -> bool:
    """Whether a folder's config.json is that of a drafter; ValueError for one of another layout."""
    for name in config.architectures or []:
        if name in OTHERS:
            raise ValueError(f"{name} is a drafter of another layout ({OTHERS[name]}): not supported")
    if ARCHITECTURE not in (config.architectures or []):
        return False
    dflash = getattr(config, "dflash_config", None) or {}
    layers, mask = dflash.get("target_layer_ids"), dflash.get("mask_token_id")
    for what, right in (
        ("block_size", at_least(getattr(config, "block_size", None), 2)),
        ("num_target_layers", at_least(getattr(config, "num_target_layers", None), 1)),
        ("dflash_config.target_layer_ids", bool(layers) and all(at_least(i, -1) for i in layers)),
        ("dflash_config.mask_token_id", at_least(mask, 0) and mask < config.vocab_size),
        (
            "draft_vocab_size",
            (size := getattr(config, "draft_vocab_size", None)) is None
            or (at_least(size, 1) and size <= config.vocab_size),
        ),
        (
            "layer_types",
            set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"},
        ),
    ):
        if not right:
            raise ValueError(f"config.json of the drafter: {what} is missing or cannot be used here")
    return True


def at_least(value: object, least: int) -> bool:
    """Whether it is a whole number, `least` or more."""
    return type(value) is int and value >= least


class DFlashDraftModel(Qwen3PreTrainedModel):
    """The published layout: `block_size` and `dflash_config` {target_layer_ids, mask_token_id} beside Qwen3's
    fields. Its hidden size is the target's.

    draft_vocab_size, where config.json has it: how many ids it can draft; the buffer `draft_ids` names them.
    """

    config: Qwen3Config
    base_model_prefix = ""
    _no_split_modules: ClassVar = ["Qwen3DecoderLayer"]
    is_causal: ClassVar = False  # a block sees all of itself, and config.json does not tell

    def __init__(self, config: Qwen3Config):
        super().__init__(config)
        size = config.hidden_size
        self.layers = nn.ModuleList(Qwen3DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        for layer in self.layers:
            layer.self_attn.is_causal = False
        self.fc = nn.Linear(len(self.feature_layers) * size, size, bias=False)
        self.hidden_norm = Qwen3RMSNorm(size, eps=config.rms_norm_eps)
        self.norm = Qwen3RMSNorm(size, eps=config.rms_norm_eps)
        self.rotary_emb = Qwen3RotaryEmbedding(config)
        size = getattr(config, "draft_vocab_size", None)
        self.register_buffer("draft_ids", None if size is None else torch.arange(size))
        self._rows: tuple[Tensor, Tensor] | None = None  # a head's table and its rows of draft_ids, cut once
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args, **kwargs) -> "DFlashDraftModel":
        """As transformers'; ValueError for a draft vocabulary that is none.

        A buffer that the weights do not have is left as memory was.
        """
        model, info = super().from_pretrained(*args, **kwargs | {"output_loading_info": True})
        drafted = model.draft_ids
        ids = [] if drafted is None or drafted.is_meta else drafted.tolist()
        if len(set(ids)) < len(ids) or not all(0 <= i < model.config.vocab_size for i in ids):
            raise ValueError(
                "draft_ids of the drafter's weights are missing, repeated or no ids of its vocabulary"
            )
        return (model, info) if kwargs.get("output_loading_info") else model

    @property
    def feature_layers(self) -> list[int]:
        """Layers of the target whose outputs are fused, counted from 0; -1 is its embedding."""
        return list(self.config.dflash_config["target_layer_ids"])

    @property
    def mask_token_id(self) -> int:
        return self.config.dflash_config["mask_token_id"]

    def features(self, hidden_states: tuple[Tensor, ...]) -> Tensor:
        """(rows, n, layers * hidden) from a target's `hidden_states`: the embeddings, then its layers."""
        return torch.cat([hidden_states[layer + 1] for layer in self.feature_layers], -1)

    def context(self, features: Tensor, position_ids: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (rows, heads, n, head_dim) of every layer, from the target's features (rows, n,
        layers * hidden) of the tokens at `position_ids` (rows, n)."""
        fused = self.hidden_norm(self.fc(features))
        rotary = self.rotary_emb(fused, position_ids)
        found = []
        for layer in self.layers:
            attention = layer.self_attn
            heads = (*fused.shape[:-1], -1, attention.head_dim)
            keys = attention.k_norm(attention.k_proj(fused).view(heads)).transpose(1, 2)
            values = attention.v_proj(fused).view(heads).transpose(1, 2)
            found.append((apply_rotary_pos_emb(keys, keys, *rotary)[1], values))
        return found

    def forward(
        self,
        input_ids: Tensor,
        embed: nn.Module,
        position_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values=None,
        use_cache: bool | None = None,
    ) -> Tensor:
        """What the target's head makes logits of, (rows, n, hidden): row k predicts the token there.

        input_ids: (rows, n), the anchor and masks. embed: the target's table. past_key_values holds the
        context; the block is written behind it. attention_mask: True or 0.0 where attended, or None: all.
        """
        hidden = embed(input_ids)
        rotary = self.rotary_emb(hidden, position_ids)
        for layer in self.layers:
            hidden = layer(
                hidden,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                position_embeddings=rotary,
            )
        return self.norm(hidden)

    def logits(self, hidden: Tensor, head: nn.Linear) -> Tensor:
        """(..., hidden) -> (..., vocabulary) in float32 by the target's head; -inf: cannot be drafted."""
        if self.draft_ids is None:
            return head(hidden).float()
        if self._rows is None or self._rows[0] is not head.weight:
            self._rows = head.weight, head.weight[self.draft_ids]
        logits = hidden.new_full((*hidden.shape[:-1], len(head.weight)), -torch.inf, dtype=torch.float32)
        logits[..., self.draft_ids] = nn.functional.linear(hidden, self._rows[1]).float()
        return logits
