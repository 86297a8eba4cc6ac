"""The chat templates and start tokens of the published models, written down: to make their prompts without
their tokenizers, which lie on the Hub. Sources: ../shared/data/golden/prompts.README.md."""

from functools import cache

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

LLADA, DREAM, BASE, QWEN25, QWEN3 = "LLaDA", "Dream", "Dream base", "Qwen2.5", "Qwen3"

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    # Contents are trimmed; the assistant's header is always written.
    LLADA: (
        "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
        "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
        "{{ message['content'] | trim }}<|eot_id|>"
        "{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    ),
    DREAM: (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "{% endif %}" + CHATML
    ),
    BASE: None,
    QWEN25: CHATML,
    # The real one also writes tools and thoughts.
    QWEN3: CHATML.replace(
        "assistant\n{% endif %}",
        "assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
    ),
}
BOS = {LLADA: "<|startoftext|>", DREAM: "<|beginoftext|>", BASE: "<|beginoftext|>"}


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer without a vocabulary that has a published model's chat template and start token."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"?": 0}, unk_token="?")),
        bos_token=BOS.get(name),
        chat_template=TEMPLATES[name],
    )
