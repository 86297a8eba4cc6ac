"""LLaDA (arXiv 2502.09992): Llama without the causal mask, trained from scratch, unshifted.

Importing registers it with transformers. Loads `GSAI-ML/LLaDA-8B-Instruct` (and -Base) with no remote code:
config fields and tensor names are OLMo's, mapped to Llama's when reading and back when writing.
"""

from typing import ClassVar

from transformers import LlamaModel, PreTrainedConfig
from transformers.core_model_loading import WeightRenaming
from transformers.models.llama.modeling_llama import LlamaPreTrainedModel

from unmask.models.bidirectional import BidirectionalLM, PublishedConfig
from unmask.models.layout import Layout, Proportions, register

# The only value of each architecture switch that Llama's blocks compute (None: the switch is left to its
# default).
SUPPORTED = {
    "block_type": ("llama",),
    "block_group_size": (1, None),
    "layer_norm_type": ("rms",),
    "layer_norm_with_affine": (True, None),
    "bias_for_layer_norm": (False,),
    "attention_layer_norm": (False, None),
    "activation_type": ("silu",),
    "rope": (True,),
    "alibi": (False, None),
    "include_bias": (False,),
    "include_qkv_bias": (False, None),
    "multi_query_attention": (False, None),
    "scale_logits": (False, None),
    "input_emb_norm": (False, None),
    "embedding_dropout": (0.0, None),
    "residual_dropout": (0.0, None),
}


class LLaDAConfig(PublishedConfig, PreTrainedConfig):
    """The published (OLMo-style) fields, readable under Llama's names too. Defaults: LLaDA 8B.

    `mlp_hidden_size` None means `mlp_ratio * d_model`; `n_kv_heads` None means `n_heads`.
    Raises ValueError for an option that Llama's blocks cannot express: see SUPPORTED.
    """

    model_type = "llada"
    keys_to_ignore_at_inference: ClassVar = ["past_key_values"]
    default_theta = 500_000.0
    supported: ClassVar = SUPPORTED
    attribute_map: ClassVar = {
        "hidden_size": "d_model",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "num_hidden_layers": "n_layers",
        "intermediate_size": "mlp_hidden_size",
        "max_position_embeddings": "max_sequence_length",
        "hidden_act": "activation_type",
        "initializer_range": "init_std",
        "tie_word_embeddings": "weight_tying",
    }
    # What LlamaModel reads and no published field says.
    attention_bias = False
    mlp_bias = False

    vocab_size: int = 126464
    embedding_size: int | None = None
    d_model: int = 4096
    n_layers: int = 32
    n_heads: int = 32
    n_kv_heads: int | None = None
    mlp_hidden_size: int | None = 12288
    mlp_ratio: int = 4
    max_sequence_length: int = 4096
    rope_parameters: dict | None = None
    rms_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    init_std: float = 0.02
    weight_tying: bool = False
    use_cache: bool = False
    mask_token_id: int = 126336
    pad_token_id: int | None = 126081
    eos_token_id: int | list[int] | None = 126081
    block_type: str = "llama"
    block_group_size: int | None = 1
    layer_norm_type: str = "rms"
    layer_norm_with_affine: bool | None = True
    bias_for_layer_norm: bool | None = False
    attention_layer_norm: bool | None = False
    activation_type: str = "silu"
    rope: bool = True
    alibi: bool | None = False
    include_bias: bool = False
    include_qkv_bias: bool | None = False
    multi_query_attention: bool | None = None
    scale_logits: bool | None = False
    input_emb_norm: bool | None = False
    embedding_dropout: float | None = 0.0
    residual_dropout: float | None = 0.0

    def __post_init__(self, **kwargs):
        if "num_experts" in kwargs:
            raise ValueError("LLaDAConfig: num_experts: this is LLaDA-MoE, of the layout llada_moe")
        super().__post_init__(**kwargs)
        if self.n_kv_heads is None:
            self.n_kv_heads = self.n_heads
        if self.mlp_hidden_size is None:
            self.mlp_hidden_size = self.mlp_ratio * self.d_model
        if self.embedding_size is None:
            self.embedding_size = self.vocab_size
        if self.embedding_size != self.vocab_size:
            raise ValueError(
                f"LLaDAConfig: embedding_size={self.embedding_size} must be vocab_size={self.vocab_size}"
            )
        if self.d_model % self.n_heads or self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"LLaDAConfig: n_heads={self.n_heads} must divide d_model={self.d_model} "
                f"and be a multiple of n_kv_heads={self.n_kv_heads}"
            )


# Published name -> Llama name, inside a block. ff_proj passes through the silu: it is the gate.
BLOCK_NAMES = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
}


class LLaDAModelLM(BidirectionalLM, LlamaPreTrainedModel):
    """LLaDA: `logits[i]` predicts token i from its own hidden state: `lookback` is 0.

    Modules (and `state_dict`) bear Llama's names; `from_pretrained` and `save_pretrained` speak the published
    ones.
    """

    config: LLaDAConfig
    backbone = LlamaModel
    # Published module -> this model's, and the published path of a layer: for adapters.
    published_modules: ClassVar = BLOCK_NAMES
    published_layer: ClassVar = "model.transformer.blocks"


MODEL_NAMES = {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "lm_head"}
LAYOUT = register(
    Layout(
        "llada",
        LLaDAConfig,
        LLaDAModelLM,
        mask_id=126_336,
        conversions=(
            *(
                WeightRenaming(rf"^model.transformer.{theirs}", f"^{ours}")
                for theirs, ours in MODEL_NAMES.items()
            ),
            *(
                WeightRenaming(rf"^model.transformer.blocks.(\d+).{theirs}", rf"^model.layers.\1.{ours}")
                for theirs, ours in BLOCK_NAMES.items()
            ),
        ),
        proportions=Proportions(126_464, {"intermediate_size": 3}),
    )
)
__all__ = ["LAYOUT", "LLaDAConfig", "LLaDAModelLM"]
