"""What a model is asked, as text and as ids: the same for evaluation and training."""

from collections.abc import Mapping, Sequence
from typing import Any


def render(tokenizer: Any, chat: Sequence[Mapping], chat_options: Mapping[str, Any] | None = None) -> str:
    """A chat as the tokenizer's template writes it, up to where the assistant's turn begins."""
    return tokenizer.apply_chat_template(
        list(chat), tokenize=False, add_generation_prompt=True, **(chat_options or {})
    )


def prompt_text(
    tokenizer: Any,
    question: str,
    system_prompt: str | None = None,
    chat_options: Mapping[str, Any] | None = None,
) -> str:
    """A question alone, after the system's turn where there is one. chat_options: of the chat template."""
    chat = [{"role": "user", "content": question}]
    if system_prompt is not None:
        chat.insert(0, {"role": "system", "content": system_prompt})
    return render(tokenizer, chat, chat_options)


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text. The chat template has written all special tokens that the model expects: none is
    added (a second BOS changes scores)."""
    return tokenizer.encode(text, add_special_tokens=False)


def prompt_ids(
    tokenizer: Any,
    question: str,
    system_prompt: str | None = None,
    chat_options: Mapping[str, Any] | None = None,
) -> list[int]:
    """The ids of `prompt_text`."""
    return text_ids(tokenizer, prompt_text(tokenizer, question, system_prompt, chat_options))
