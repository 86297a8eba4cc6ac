"""Small random models of every kind, always the same ones, with a vocabulary of 16 ids: 0-13 are words, 14 is
EOS, 15 is MASK. And a hook that counts what a model really does.
"""

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config

from dream import DreamConfig, DreamModel
from llada import LLaDAConfig, LLaDAModelLM
from unmask.decoding.visibility import attended
from unmask.models.drafter import DFlashDraftModel

VOCABULARY, EOS, MASK = 16, 14, 15
COMMON = {"vocab_size": VOCABULARY, "pad_token_id": None, "initializer_range": 0.4}
SHAPE = COMMON | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"},
}


def frozen(model: torch.nn.Module) -> torch.nn.Module:
    return model.eval().requires_grad_(False)


def small_dream() -> DreamModel:
    """A denoiser that predicts a token from the column before it."""
    torch.manual_seed(1)
    return frozen(DreamModel(DreamConfig(**SHAPE, mask_token_id=MASK)))


def small_llada(**fields) -> LLaDAModelLM:
    """A denoiser that predicts a token from its own column."""
    torch.manual_seed(2)
    sizes = {"d_model": 32, "n_layers": 2, "n_heads": 4, "mlp_hidden_size": 48, "init_std": 0.4}
    ids = {"vocab_size": VOCABULARY, "mask_token_id": MASK, "eos_token_id": EOS, "pad_token_id": None}
    return frozen(LLaDAModelLM(LLaDAConfig(**(ids | sizes | fields))))


def small_qwen() -> Qwen2ForCausalLM:
    """A causal model that never writes MASK."""
    torch.manual_seed(3)
    model = frozen(Qwen2ForCausalLM(Qwen2Config(**SHAPE)))
    model.lm_head.weight[MASK] = model.lm_head.weight[:MASK].mean(0)  # a mean never wins
    return model


def small_drafter(**fields) -> DFlashDraftModel:
    """A drafter of `small_qwen`, of blocks of 4. fields: of its config, besides."""
    torch.manual_seed(5)
    shape = {name: value for name, value in SHAPE.items() if name != "rope_parameters"}
    config = Qwen3Config(**(shape | {"num_hidden_layers": 1, "head_dim": 8}), **fields)
    config.block_size, config.num_target_layers = 4, 2
    config.dflash_config = {"target_layer_ids": [0, 1], "mask_token_id": MASK}
    return frozen(DFlashDraftModel(config))


class Hook:
    """Counts what a model really does: forwards, rows of all forwards, and positions fed that are not
    padding."""

    def __init__(self, model: torch.nn.Module):
        self.forwards = self.rows = self.positions = 0
        self.fed = []  # positions of each forward
        self.handle = model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, model, args, kwargs):
        ids, mask = kwargs["input_ids"] if "input_ids" in kwargs else args[0], kwargs.get("attention_mask")
        slots = getattr(kwargs.get("past_key_values"), "slots", None)
        if isinstance(slots, torch.Tensor):  # the last slot takes padding
            fed = int((slots < kwargs["past_key_values"].length).sum())
        else:  # nobody sees padding; what is fed are the last keys
            fed = ids.numel() if mask is None else int(attended(mask).any(-2)[..., -ids.size(1) :].sum())
        self.forwards += 1
        self.rows += len(ids)
        self.positions += fed
        self.fed.append(fed)
