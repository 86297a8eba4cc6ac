"""Open-dCoder (github pengzhangzhi/Open-dLLM): Qwen2.5-Coder without the causal mask, shifted.

Loads `fredzzp/open-dcoder-0.5B`, whose config.json is a plain Qwen2's: `model.layout=open_dcoder` says what
it is. Row i of the network predicts token i + 1.
"""

from transformers import Qwen2Model
from transformers.models.qwen2.modeling_qwen2 import Qwen2PreTrainedModel

from unmask.models.bidirectional import BidirectionalLM
from unmask.models.layout import Layout, register
from unmask.models.layouts.a2d_qwen2 import LAYOUT as A2D_QWEN2
from unmask.models.layouts.a2d_qwen2 import A2DQwen2Config


class OpenDCoderConfig(A2DQwen2Config):
    """Qwen2's fields; defaults are Qwen2.5-Coder 0.5B's, which Tiny-A2D's are too."""

    model_type = "qwen2"


class OpenDCoderLM(BidirectionalLM, Qwen2PreTrainedModel):
    config: OpenDCoderConfig
    backbone = Qwen2Model


LAYOUT = register(
    Layout(
        "open_dcoder",
        OpenDCoderConfig,
        OpenDCoderLM,
        lookback=1,
        mask_id=151_665,  # appended to the tokenizer, so it is its length
        by_name_only=True,
        proportions=A2D_QWEN2.proportions,
    )
)
