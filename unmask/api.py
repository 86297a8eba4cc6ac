"""A plain Python door: decode prompts with models in hand, without configurations, tasks or records."""

from collections.abc import Sequence

import torch

from unmask.decoding import Decoder, Generation, Models, Stop


def generate(
    model: torch.nn.Module,
    prompts: Sequence[str | torch.Tensor | Sequence[int]],
    decoder: Decoder,
    max_new_tokens: int = 256,
    tokenizer=None,
    stop: Stop | None = None,
    seeds: Sequence[int] | None = None,
    **others: torch.nn.Module,
) -> list[Generation]:
    """Decode every prompt; a batch of all of them, each row at its own pace.

    Args:
        model: of the decoder's first role (a DreamModel or LLaDAModelLM; a causal model for
            `Autoregressive`).
        prompts: texts (with a tokenizer; any chat template must have been applied), or ids, each 1-D.
        max_new_tokens: new tokens at most.
        stop: where answers end; by default at the end ids of the tokenizer, or of the model's config.
        seeds: of each prompt's noise; by default 0, 1, 2, ...
        others: the models of the decoder's other roles, by name: `auxiliary=qwen`.

    Returns:
        A Generation per prompt: ids, useful, forwards and positions by role, seconds.

    Raises:
        ValueError: a role is missing or unknown, or a text comes without a tokenizer.
    """
    first, *rest = decoder.roles
    if set(rest) != set(others):
        wanted = ", ".join(f"{role}=" for role in rest) or "no other models"
        raise ValueError(f"{type(decoder).__name__} takes {wanted}; given: {', '.join(others) or 'none'}")
    if tokenizer is None and any(isinstance(prompt, str) for prompt in prompts):
        raise ValueError("prompts are texts: give tokenizer=, or ids instead")
    ids = [
        torch.as_tensor(tokenizer.encode(p, add_special_tokens=False) if isinstance(p, str) else p).long()
        for p in prompts
    ]
    if stop is None:
        ends = tokenizer.eos_token_id if tokenizer else model.config.eos_token_id
        stop = Stop(frozenset([ends] if isinstance(ends, int) else ends or []))
    models = Models({first: model} | {role: others[role] for role in rest})
    return decoder.decode(models, ids, max_new_tokens, stop, list(seeds or range(len(ids))))
