"""The registry of layouts: a file each, and one line here."""

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

import dream
import llada
from unmask.models.layout import Layout
from unmask.models.layouts import (
    a2d_qwen2,
    a2d_qwen3,
    diffusion_gemma,
    fast_dllm_qwen,
    llada2_moe,
    llada_moe,
    open_dcoder,
    sdar,
)

LAYOUTS: dict[str, Layout] = {
    module.LAYOUT.name: module.LAYOUT
    for module in (
        dream,
        llada,
        a2d_qwen3,
        a2d_qwen2,
        sdar,
        fast_dllm_qwen,
        open_dcoder,
        llada_moe,
        llada2_moe,
        diffusion_gemma,
    )
}


def layout_of(config: Mapping[str, Any], name: str | None = None) -> Layout | None:
    """The layout of a config.json; None where it is of no diffusion model.

    name: `model.layout`, which decides where config.json does not tell; ValueError where it does not fit.
    """
    if name is not None:
        if name not in LAYOUTS:
            raise ValueError(f"layout={name}: must be one of {', '.join(LAYOUTS)}")
        if not LAYOUTS[name].fits(config):
            raise ValueError(
                f"layout={name} is for model_type {LAYOUTS[name].config.model_type}, and config.json says "
                f"{config.get('model_type')} {config.get('architectures')}"
            )
        return LAYOUTS[name]
    fitting = [layout for layout in LAYOUTS.values() if layout.fits(config) and not layout.by_name_only]
    return max(fitting, key=lambda layout: bool(layout.architectures), default=None)


def built_by(config: PretrainedConfig) -> Layout | None:
    """The layout whose config class this is; None for causal models and drafters."""
    return next((layout for layout in LAYOUTS.values() if type(config) is layout.config), None)
