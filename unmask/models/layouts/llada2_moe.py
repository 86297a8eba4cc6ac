"""LLaDA2.0-mini, LLaDA2.1-mini (arXiv 2512.15745, 2602.08676): a block-causal mixture of experts, unshifted.

Loads `inclusionAI/LLaDA2.0-mini` and `inclusionAI/LLaDA2.1-mini`. The blocks are those of GLM 4.5
under other names: a sigmoid router with a bias that only selects, groups of experts, a shared expert, heads
that rotate in part.
"""

from typing import ClassVar

from transformers import Glm4MoeConfig, Glm4MoeModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.core_model_loading import Split, WeightConverter, WeightRenaming
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoePreTrainedModel

from unmask.models.bidirectional import BidirectionalLM, PublishedConfig
from unmask.models.layout import Layout, Proportions, register


class LLaDA2MoeConfig(PublishedConfig, Glm4MoeConfig):
    """The published (Bailing MoE v2) fields. Defaults: 2.0-mini.

    ValueError for an option that GLM's blocks cannot express: see `supported`.
    """

    model_type = "llada2_moe"
    default_theta = 600_000.0
    supported: ClassVar = {
        "score_function": ("sigmoid",),
        "moe_router_enable_expert_bias": (True,),
        "use_qk_norm": (True,),
        "use_bias": (False,),
        "use_qkv_bias": (False,),
        "norm_head": (False,),
        "use_sliding_window": (False,),
        "embedding_dropout": (0.0,),
        "output_dropout": (0.0,),
    }

    vocab_size: int = 157_184
    hidden_size: int = 2048
    intermediate_size: int = 5120
    moe_intermediate_size: int = 512
    num_hidden_layers: int = 20
    num_attention_heads: int = 16
    num_key_value_heads: int = 4
    head_dim: int = 128
    max_position_embeddings: int = 32_768
    rms_norm_eps: float = 1e-6
    use_cache: bool = False
    num_experts: int = 256
    num_shared_experts: int = 1
    num_experts_per_tok: int = 8
    n_group: int = 8
    topk_group: int = 4
    routed_scaling_factor: float = 2.5
    first_k_dense_replace: int = 1
    score_function: str = "sigmoid"
    moe_router_enable_expert_bias: bool = True
    use_qk_norm: bool = True
    use_bias: bool = False
    use_qkv_bias: bool = False
    norm_head: bool = False
    use_sliding_window: bool = False
    embedding_dropout: float = 0.0
    output_dropout: float = 0.0
    mask_token_id: int = 156_895

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.n_routed_experts, self.n_shared_experts = self.num_experts, self.num_shared_experts


class LLaDA2MoeModelLM(BidirectionalLM, Glm4MoePreTrainedModel):
    config: LLaDA2MoeConfig
    backbone = Glm4MoeModel
    _keys_to_ignore_on_load_unexpected = None  # GLM's own: layers that this model does not have


NAMES = {
    "model.word_embeddings": "model.embed_tokens",
    ".attention.query_layernorm": ".self_attn.q_norm",
    ".attention.key_layernorm": ".self_attn.k_norm",
    ".attention.dense": ".self_attn.o_proj",
    ".mlp.gate.expert_bias": ".mlp.gate.e_score_correction_bias",
}
LAYOUT = register(
    Layout(
        "llada2_moe",
        LLaDA2MoeConfig,
        LLaDA2MoeModelLM,
        attention="block_causal",
        blocks_from="column_0",
        mask_id=156_895,
        model_types=("llada21_moe",),  # dllm's name of 2.1: the same network
        conversions=(
            *(WeightRenaming(theirs, ours) for theirs, ours in NAMES.items()),
            WeightConverter(  # all query heads, then keys, then values
                "attention.query_key_value.weight",
                [f"self_attn.{part}_proj.weight" for part in "qkv"],
                operations=[Split(dim=0)],
            ),
            *get_checkpoint_conversion_mapping("qwen2_moe"),  # a tensor per expert, stored
        ),
        proportions=Proportions(
            157_184, {"intermediate_size": 2.5, "moe_intermediate_size": 0.25}, 4, head_dim=128
        ),
    )
)
