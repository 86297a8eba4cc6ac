"""DiffusionGemma, as it is in transformers: an encoder and a decoder of the same weights, and uniform noise.

Loads `google/diffusiongemma-26B-A4B-it`. It has no mask and commits nothing for good, so none of the
decoders for mask models runs on it: its own `generate` does.
"""

from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

from unmask.models.layout import Layout, register

LAYOUT = register(
    Layout(
        "diffusion_gemma",
        DiffusionGemmaConfig,
        DiffusionGemmaForBlockDiffusion,
        block_field="canvas_length",
        kind="uniform_diffusion",
    )
)
