"""Models of random weights in the real layouts and proportions: for measuring costs."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import dream  # noqa: F401  (registers the published layouts with transformers)
import llada  # noqa: F401
from unmask.models.loading import DIFFUSION
from unmask.models.resources import memory_of
from unmask.models.settings import RandomModel

# Of the published Dream 7B, LLaDA 8B and Qwen2.5 0.5B: query heads per key head, inner width over width,
# vocabulary.
PROPORTIONS = {
    "Dream": (7, 18944 / 3584, 152_064),
    "llada": (1, 3, 126_464),
    "qwen2": (7, 4864 / 896, 151_936),
}


def check(settings: RandomModel) -> None:
    """ValueError where the settings make no model, or one that this machine's memory does not hold in
    float32."""
    name, width, depth = settings.name, settings.width, settings.depth
    if settings.layout not in PROPORTIONS:
        raise ValueError(f"model {name}: layout={settings.layout}: must be one of {', '.join(PROPORTIONS)}")
    if width < 64 or width % 64:
        raise ValueError(f"model {name}: width={width}: must be a multiple of 64, at least 64")
    if depth < 1:
        raise ValueError(f"model {name}: depth={depth}: must be at least 1")
    if settings.vocabulary is not None and settings.vocabulary < 2:
        raise ValueError(f"model {name}: vocabulary={settings.vocabulary}: must be at least 2")
    _, inner, vocabulary = PROPORTIONS[settings.layout]
    vocabulary = settings.vocabulary or vocabulary
    # two tables; a layer's queries and outputs, and its three products of the inner width
    size = 4 * (2 * vocabulary * width + depth * (2 + 3 * inner) * width**2)
    memory = memory_of(torch.device("cpu"))
    if size > memory:
        raise ValueError(
            f"model {name}: width={width}, depth={depth} and vocabulary={vocabulary} need "
            f"{size / 1e9:,.0f} GB, and this machine has {memory / 1e9:,.0f}: give smaller ones"
        )


def random_model(settings: RandomModel) -> torch.nn.Module:
    """A model of random weights (always the same ones), with heads of 64; ValueError as `check`'s."""
    check(settings)
    group, inner, vocabulary = PROPORTIONS[settings.layout]
    heads = settings.width // 64
    config = AutoConfig.for_model(
        settings.layout,
        vocab_size=settings.vocabulary or vocabulary,
        hidden_size=settings.width,
        num_hidden_layers=settings.depth,
        num_attention_heads=heads,
        num_key_value_heads=max(
            k for k in range(1, heads + 1) if heads % k == 0 and k <= max(1, heads // group)
        ),
        intermediate_size=round(inner * settings.width),
        max_position_embeddings=32_768,
        **{"eos_token_id": None, "pad_token_id": None, "bos_token_id": None} if settings.vocabulary else {},
    )
    if settings.vocabulary and settings.layout in DIFFUSION:
        config.mask_token_id = settings.vocabulary - 1
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
