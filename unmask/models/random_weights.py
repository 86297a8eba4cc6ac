"""Models of random weights in the real layouts and proportions: for measuring costs."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, Qwen3Config

from unmask.models.drafter import ARCHITECTURE, DFlashDraftModel, is_drafter
from unmask.models.layout import Proportions
from unmask.models.layouts import LAYOUTS
from unmask.models.resources import memory_of
from unmask.models.settings import RandomModel

# Causal ones: Qwen2.5 0.5B and Qwen3 0.6B, whose heads are their embeddings.
CAUSAL = {
    "qwen2": Proportions(151_936, {"intermediate_size": 4864 / 896}, 7),
    "qwen3": Proportions(151_936, {"intermediate_size": 3}, 2, head_dim=128, heads_width=2),
}
QWEN2 = {  # Qwen2.5's own shapes, by width
    3584: {  # 7B
        "tie_word_embeddings": False,
        "vocab_size": 152_064,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18_944,
    },
}
CPU = torch.device("cpu")
DRAFTER = "dflash"  # of Qwen3's blocks (models/drafter.py)
LARGEST = {"width": 2**16, "depth": 2**10, "vocabulary": 2**20}


def random_model(
    settings: RandomModel,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> torch.nn.Module:
    """A model of random weights (always the same ones of a kind of device), made on the device; ValueError
    where the settings make none, or one that does not fit its memory. Nothing is allocated before."""
    config = random_config(settings)
    needed, memory = dtype.itemsize * parameters_of(config), memory_of(device)
    if needed > memory:
        raise ValueError(
            f"width={settings.width} and depth={settings.depth} make {needed / 1e9:,.0f} GB of weights, and "
            f"{'this machine' if device.type == 'cpu' else device} has {memory / 1e9:,.0f} GB"
        )
    torch.manual_seed(0)
    with torch.device(device):
        return _built(config, dtype)


def _built(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    if is_drafter(config):
        return DFlashDraftModel(config).to(dtype)
    return AutoModelForCausalLM.from_config(config, dtype=dtype)


def random_config(settings: RandomModel) -> PretrainedConfig:
    """The configuration of such a model; ValueError naming the setting that is wrong.

    At the published width it is the published model's, heads and all, of the depth that is asked for.
    """
    known = {name: layout.proportions for name, layout in LAYOUTS.items() if layout.proportions} | CAUSAL
    known[DRAFTER] = CAUSAL["qwen3"]
    if settings.layout not in known:
        raise ValueError(f"layout={settings.layout} must be one of {', '.join(known)}")
    shape = known[settings.layout]
    step = int(shape.head_dim / shape.heads_width)  # of the width, for a head more
    for name, value, smallest in (
        ("width", settings.width, step),
        ("depth", settings.depth, 1),
        ("vocabulary", settings.vocabulary, 2),
    ):
        if value is not None and not (type(value) is int and smallest <= value <= LARGEST[name]):
            raise ValueError(f"{name}={value} must be from {smallest} to {LARGEST[name]:,}")
    if settings.width % step:
        raise ValueError(
            f"width={settings.width} must be a multiple of {step}, for heads of {shape.head_dim}"
        )
    heads = settings.width // step
    fields = {
        "vocab_size": settings.vocabulary or shape.vocabulary,
        "hidden_size": settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": heads,
        "num_key_value_heads": max(
            k for k in range(1, heads + 1) if heads % k == 0 and k <= max(1, heads // shape.heads_per_key)
        ),
        "max_position_embeddings": 32_768,
    }
    fields |= {name: round(ratio * settings.width) for name, ratio in shape.fields.items()}
    fields |= _published(settings)
    if settings.vocabulary:  # published ids may lie beyond it
        fields |= dict.fromkeys(("eos_token_id", "pad_token_id", "bos_token_id"))
    if settings.layout in CAUSAL:
        return AutoConfig.for_model(settings.layout, **{"tie_word_embeddings": True, **fields})
    if settings.layout == DRAFTER:
        return _drafter_config(fields)
    if settings.vocabulary:
        fields["mask_token_id"] = settings.vocabulary - 1
    return LAYOUTS[settings.layout].config(**fields)


def _published(settings: RandomModel) -> dict[str, object]:
    """Fields of the published model of this layout and width, beside its proportions."""
    if settings.layout in (*CAUSAL, DRAFTER):
        fields = QWEN2.get(settings.width, {}) if settings.layout == "qwen2" else {}
        return fields | ({"vocab_size": settings.vocabulary} if settings.vocabulary else {})
    theirs = LAYOUTS[settings.layout].config()
    heads = ("num_attention_heads", "num_key_value_heads")
    return {name: getattr(theirs, name) for name in heads} if theirs.hidden_size == settings.width else {}


def _drafter_config(fields: dict) -> PretrainedConfig:
    """Blocks of 16, and features of as many of the target's layers as the drafter has: published are five
    (z-lab/Qwen3-4B-DFlash-b16). Which ones does not change the cost: the first."""
    depth = fields["num_hidden_layers"]
    dflash = {"mask_token_id": fields["vocab_size"] - 1, "target_layer_ids": list(range(depth))}
    shape = {"block_size": 16, "num_target_layers": depth, "dflash_config": dflash}
    return Qwen3Config(architectures=[ARCHITECTURE], **shape, **fields)


def parameters_of(config: PretrainedConfig) -> int:
    """How many a model has, from the shapes of its first layers: all others are like the third."""
    depth, counts = config.num_hidden_layers, {}
    for layers in {min(depth, 2), min(depth, 3)}:
        config.num_hidden_layers = layers
        with torch.device("meta"):
            counts[layers] = sum(p.numel() for p in _built(config).parameters())
    config.num_hidden_layers = depth
    few, more = min(counts), max(counts)
    return counts[more] + (depth - more) * (counts[more] - counts[few])
