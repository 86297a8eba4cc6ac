"""LLaDA-MoE 7B-A1B (inclusionAI): a mixture of experts as Qwen3's, bidirectional, unshifted.

Loads `inclusionAI/LLaDA-MoE-7B-A1B-Instruct` (and -Base). Its `model_type` is the dense LLaDA's:
`architectures` tells them apart. Queries and keys are normalised per head, as in Qwen3 and unlike in OLMoE.
"""

from typing import ClassVar

from huggingface_hub.dataclasses import strict
from transformers import Qwen3MoeConfig, Qwen3MoeModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoePreTrainedModel

from unmask.models.bidirectional import BidirectionalLM, PublishedConfig
from unmask.models.layout import Layout, Proportions, register


@strict  # again, since norm_topk_prob may be null here
class LLaDAMoEConfig(PublishedConfig, Qwen3MoeConfig):
    """The published fields, readable under Qwen3's names too. Defaults: 7B-A1B.

    ValueError for an option that Qwen3's blocks cannot express: see `supported`.
    """

    model_type = "llada"
    default_theta = 50_000.0
    attribute_map: ClassVar = {
        "intermediate_size": "dense_intermediate_size",
        "moe_intermediate_size": "expert_intermediate_size",
    }
    supported: ClassVar = {
        "qk_layernorm": (True,),
        "shared_expert_intermediate_size": (None, 0),
        "moe_router_score_function": ("softmax",),
        "moe_router_enable_expert_bias": (False, None),
        "routed_scaling_factor": (1, 1.0, None),
        "router_num_group": (None, 1),
        "router_topk_group": (None, 1),
        "partial_rotary_factor": (1, 1.0, None),
        "clip_qkv": (None,),
        "attention_bias": (False,),
    }

    vocab_size: int = 157_184
    hidden_size: int = 2048
    dense_intermediate_size: int = 8192
    expert_intermediate_size: int = 1024
    shared_expert_intermediate_size: int | None = None
    num_hidden_layers: int = 16
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 16
    head_dim: int | None = None  # None: hidden_size over heads
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-5
    use_cache: bool = False
    num_experts: int = 64
    num_experts_per_tok: int = 8
    norm_topk_prob: bool | None = False
    moe_layer_freq: list[int] | int | None = None  # 1: experts, 0: a dense layer; None: all 1
    qk_layernorm: bool = True
    moe_router_score_function: str = "softmax"
    moe_router_enable_expert_bias: bool | None = False
    routed_scaling_factor: float | int | None = 1
    router_num_group: int | None = None
    router_topk_group: int | None = None
    partial_rotary_factor: float | int | None = 1
    clip_qkv: float | None = None
    mask_token_id: int = 156_895

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.head_dim = self.head_dim or self.hidden_size // self.num_attention_heads
        dense = self.moe_layer_freq if isinstance(self.moe_layer_freq, list) else []
        self.mlp_only_layers = [i for i, has_experts in enumerate(dense) if not has_experts]


class LLaDAMoEModelLM(BidirectionalLM, Qwen3MoePreTrainedModel):
    config: LLaDAMoEConfig
    backbone = Qwen3MoeModel


LAYOUT = register(
    Layout(
        "llada_moe",
        LLaDAMoEConfig,
        LLaDAMoEModelLM,
        mask_id=156_895,
        architectures=("LLaDAMoEModelLM",),
        model_types=("lladamoe",),  # as dllm asks its users to write
        conversions=tuple(get_checkpoint_conversion_mapping("qwen2_moe")),  # a tensor per expert, stored
        proportions=Proportions(
            157_184, {"dense_intermediate_size": 4, "expert_intermediate_size": 0.5}, head_dim=128
        ),
    )
)
