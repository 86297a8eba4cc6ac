"""What a published layout declares because nothing else tells it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, PretrainedConfig
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


@dataclass(frozen=True)
class Proportions:
    """The shape of a published model relative to its hidden width: for random models of other widths.

    fields: widths of config fields over the hidden width, as {"intermediate_size": 4.0}.
    """

    vocabulary: int
    fields: Mapping[str, float]
    heads_per_key: int = 1  # query heads that share a key head
    head_dim: int = 64
    heads_width: float = 1.0  # of all query heads together, over the hidden width


@dataclass(frozen=True)
class Layout:
    """A published layout: its classes, and what cannot be guessed from config.json.

    Attributes:
        name: in the registry and in `model.layout`.
        config: fields of config.json; its defaults are a published model's.
        model: the network; `logits[i]` predicts token i.
        lookback: 1 where row i of the network predicts token i + 1, else 0.
        attention: "full" (may be trained to be block-causal) or "block_causal" (never sees a later block).
        blocks_from: where blocks are counted from, under block-causal attention.
            "prompt": the prompt is one block, others follow it (D2F).
            "column_0": block of column c is c // block_length; the prompt's last block may hold new tokens.
            "padded_prompt": both ways from the prompt's end, so the prompt's *first* block may be short.
        mask_id: taken where neither config.json nor the tokenizer names one; None: no mask model.
        pad_is_special: a generated pad id becomes invisible from the next block on (and moves positions).
        block_field: config.json's field for the block length; None: it has none.
        architectures: of config.json, where several layouts share a `model_type`; (): any.
        model_types: of config.json, beside `config.model_type`.
        by_name_only: nothing in config.json says that this is a diffusion model; `model.layout` does.
        kind: diffusion, or uniform_diffusion for models that replace noise and have no mask.
        conversions: transformers' WeightRenaming and WeightConverter, from the published tensor names.
        proportions: of random models; None: there are none of this layout.
        tasks: all that such a model answers; (): any.
    """

    name: str
    config: type[PretrainedConfig]
    model: type[torch.nn.Module]
    lookback: int = 0
    attention: str = "full"
    blocks_from: str = "prompt"
    mask_id: int | None = None
    pad_is_special: bool = False
    block_field: str | None = None
    architectures: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()
    by_name_only: bool = False
    kind: str = "diffusion"
    conversions: tuple = ()
    proportions: Proportions | None = field(default=None, compare=False)
    tasks: tuple[str, ...] = ()

    def fits(self, config: Mapping[str, Any]) -> bool:
        """Whether a config.json is of this layout, as far as its model type and architectures tell."""
        known = (self.config.model_type, *self.model_types)
        named = set(config.get("architectures") or ())
        return config.get("model_type") in known and (
            not self.architectures or bool(named & {*self.architectures})
        )

    def block_length(self, config: PretrainedConfig) -> int | None:
        """Of a model, where its config.json tells it."""
        return getattr(config, self.block_field) if self.block_field else None


def register(layout: Layout) -> Layout:
    """Make transformers build the layout's classes: published folders load without remote code.

    A model type that transformers knows already, or that an earlier layout took, keeps its meaning for
    AutoConfig: such a folder is read with the layout's own config class (`loading.Source`).
    """
    if layout.config.model_type not in CONFIG_MAPPING:
        AutoConfig.register(layout.config.model_type, layout.config)
    if layout.kind == "diffusion":
        layout.model.layout = layout
        for auto in (AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM):
            auto.register(layout.config, layout.model)
    if layout.conversions:
        register_checkpoint_conversion_mapping(
            layout.model.__name__, list(layout.conversions), overwrite=True
        )
    return layout
