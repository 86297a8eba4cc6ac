"""What all layouts share: transformers' decoder blocks, run as a bidirectional denoiser.

A masked diffusion model is a decoder-only transformer without the causal mask, read at the masked positions.
So nothing of the network is written here: the backbone (rotary embeddings, attention backends, caches) is
transformers' own, and this file adds what a denoiser needs: logits aligned with the tokens they predict,
computed only where asked, over a left-padded batch and an optional KV cache. Sources: Dream 7B (arXiv
2508.15487), LLaDA (arXiv 2502.09992).
"""

from typing import ClassVar

import torch
from torch import nn
from transformers.core_model_loading import revert_weight_conversion
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import can_return_tuple

from unmask.models.layout import Layout


class PublishedConfig:
    """Config mixin: attention is not causal, and config.json keeps the published field names."""

    # The values of each switch of the layout that its blocks compute; others are a ValueError.
    supported: ClassVar[dict[str, tuple]] = {}
    # transformers reads this one flag for the mask and for the attention kernels alike. A class attribute,
    # because it is a fact about the architecture and not a setting to store.
    is_causal = False

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        for name, allowed in self.supported.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(
                    f"{type(self).__name__}: {name}={value!r} is not supported, only {allowed[0]!r} is"
                )

    def to_diff_dict(self):
        """What config.json gets: `rope_theta` (`rope_scaling` if set) and `torch_dtype`, as published."""
        fields = super().to_diff_dict()
        # auto_map names remote code, which a folder we write does not contain; the others are derived again
        # on load.
        for name in ("auto_map", "is_causal", "layer_types"):
            fields.pop(name, None)
        rope = dict(fields.pop("rope_parameters"))
        fields["rope_theta"] = rope.pop("rope_theta")
        if "partial_rotary_factor" in rope:
            fields["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        if rope["rope_type"] != "default":
            fields["rope_scaling"] = rope
        if "dtype" in fields:
            fields["torch_dtype"] = fields.pop("dtype")
        return fields


class BidirectionalLM:
    """Model mixin over a `*PreTrainedModel` of transformers: `logits[i]` predicts token i.

    A subclass names its `backbone` class; its `layout` says what else differs (layout.register).
    """

    backbone: type[nn.Module]
    layout: ClassVar[Layout]
    _tied_weights_keys: ClassVar = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = self.backbone(config)
        for module in self.model.modules():  # attention modules; without a mask the kernels read this flag
            if hasattr(module, "is_causal"):
                module.is_causal = False
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        # The pad id is the end-of-text id in both families, a token that these models learn to predict and to
        # read. With a padding_idx its embedding would start at zero and never get a gradient; the mask
        # excludes padding.
        self.model.embed_tokens.padding_idx = None
        self.model.embed_tokens._is_hf_initialized = False  # its init zeroed that row: draw it again
        self.post_init()

    @property
    def lookback(self) -> int:
        """How many positions left of a wanted logit must be among the fed positions of a cached forward."""
        return self.layout.lookback

    @property
    def block_length(self) -> int | None:
        """Of block-causal attention, where config.json tells it."""
        return self.layout.block_length(self.config)

    def align(self, hidden_states, position_ids):
        """Move the hidden state that predicts token i to row i: (batch, n_fed, hidden) -> the same shape.

        position_ids (batch, n_fed) is None where rows are not padded.
        """
        if not self.lookback:
            return hidden_states
        shifted = torch.cat((hidden_states[:, :1], hidden_states[:, :-1]), dim=1)
        if position_ids is None:
            return shifted
        # A left-padded row starts further right, where the state before its first token is that of a pad.
        return torch.where((position_ids == 0).unsqueeze(-1), hidden_states, shifted)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values=None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor | None = 0,
        aligned: bool = True,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """One forward in which every fed position attends to all cached and fed positions, padding excluded.

        Args:
            input_ids: (batch, n_fed) token ids, masks included.
            attention_mask: (batch, n_cached + n_fed), 1 for real tokens, at least one in every row. Leave it
                out when nothing is padded: then the attention kernel gets no mask. (Whether a given mask is
                all ones is not looked up, since that would wait for the device.) A 4-D mask (batch, 1, n_fed,
                n_cached + n_fed), True or 0.0 where attended, goes to the kernel as it is.
            position_ids: (batch, n_fed). By default counted over the real tokens of a 2-D mask, so that a
                left-padded row equals the unpadded one; without such a mask they continue at n_cached.
            past_key_values: a transformers cache; it is read, and extended by the fed positions. To recompute
                from position s, crop it to s and feed x[:, s:]. (transformers' `crop` takes *minus the number
                of tokens to remove*: `cache.crop(s - cache.get_seq_length())`.)
            use_cache: True starts a cache where none is passed. The default is no cache, whatever the config
                says.
            logits_to_keep: the positions *whose tokens are to be predicted*, counted from the first fed one.
                0: all; an int k: the last k; a LongTensor (k,): these in every row, (batch, k): these per
                row; a BoolTensor (batch, n_fed): the True ones, flattened (which waits for the device, to
                count them); None: no logits, only `hidden_states`.
            aligned: False leaves rows as the network makes them: row i predicts token i + `lookback`. So the
                last fed position of a shifted model predicts the token right of all that was fed.
            kwargs: for the backbone, e.g. `output_hidden_states`.

        Returns:
            `logits` (batch, n_kept, vocab), or (n_true, vocab) for a boolean `logits_to_keep`, and
            `past_key_values`. The head runs on the kept positions only. Without it (None), `hidden_states`
            ends with what `lm_head` makes logits of, aligned like them: (batch, n_fed, hidden). In a cached
            forward the first `lookback` fed positions have no predictor and their rows are meaningless,
            unless they start at position 0.

        Raises:
            ValueError: a 2-D attention_mask does not cover exactly the cached and the fed positions.
        """
        embeddings = self.model.embed_tokens(input_ids)
        if attention_mask is not None and attention_mask.ndim == 2:
            n_cached = 0 if past_key_values is None else past_key_values.get_seq_length()
            batch, n_fed = input_ids.shape
            if tuple(attention_mask.shape) != (batch, n_cached + n_fed):
                raise ValueError(
                    f"attention_mask has shape {tuple(attention_mask.shape)}; "
                    f"with {n_cached} cached and {n_fed} fed positions it must be {(batch, n_cached + n_fed)}"
                )
            if position_ids is None:
                position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, n_cached:]
            # Built here, because the backbone would first ask the device whether the mask is all ones.
            attention_mask = create_bidirectional_mask(
                self.config,
                embeddings,
                attention_mask,
                past_key_values=past_key_values,
                allow_is_bidirectional_skip=False,
            )
        outputs = self.model(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=bool(use_cache) or past_key_values is not None,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        if aligned:
            hidden_states = self.align(hidden_states, position_ids)
        if logits_to_keep is None:
            return CausalLMOutputWithPast(
                past_key_values=outputs.past_key_values, hidden_states=(hidden_states,)
            )
        return CausalLMOutputWithPast(
            logits=self.lm_head(slice_logits_to_keep(hidden_states, logits_to_keep)),
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def published_shapes(model) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes as `model.save_pretrained` would write them; allocates nothing (use `meta`)."""
    return {name: tuple(t.shape) for name, t in revert_weight_conversion(model, model.state_dict()).items()}
