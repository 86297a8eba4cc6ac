"""The one tokenizer of the tiny family: byte-level BPE with Qwen's splitting rule and a ChatML template.

Digits stay single and the space stays out of the number, as in Qwen2.5, so that equal numbers are equal ids
wherever they stand. The text is generated (problems.py), so the tokenizer is reproduced from scratch and
never changes.
"""

import random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from unmask.tasks import problems

VOCABULARY = 2048  # at most: the texts have pairs for 1,957
END_OF_TURN, PAD, MASK = "<|im_end|>", "<|endoftext|>", "<|mask|>"
SPECIAL = [PAD, "<|im_start|>", END_OF_TURN, MASK]

# Qwen2's splitting rule: contractions, words with one leading space, single digits, punctuation, line ends,
# spaces.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build() -> PreTrainedTokenizerFast:
    """Train the tokenizer on generated problems: about 10 seconds, always the same result."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = [
        text
        for task in problems.WORKED
        for problem in problems.training_stream(task, 0, 20_000 if task == "gsm_symbolic" else 500)
        for text in (problem.question, problem.solution)
    ]
    rng = random.Random(0)
    texts += ["".join(problems.expression(rng)) for _ in range(2000)]
    # Sorted within the trainer by frequency, ties by text: the order of the corpus does not matter.
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        mask_token=MASK,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
