"""The plain Python function: decode prompts with models in hand, without configurations, tasks or records."""

from collections.abc import Sequence

import torch

from unmask.decoding import Decoder, Generation, Models, Stop

KINDS = {  # of a role -> what it needs
    "diffusion": "a diffusion model (DreamModel, LLaDAModelLM)",
    "causal": "a causal model (one that predicts the next token)",
    "drafter": "a DFlash drafter (DFlashDraftModel)",
}


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
        ValueError: a role is missing, unknown or has a model of another kind; prompts are one text, or texts
            without a tokenizer; a prompt holds the mask, or does not fit a model's context with its answer.
    """
    if isinstance(prompts, str):
        raise ValueError(f"prompts is one text: give a list of texts, [{prompts[:20]!r}]")
    first, *rest = decoder.roles
    if set(rest) != set(others):
        wanted = ", ".join(f"{role}=" for role in rest) or "no other models"
        raise ValueError(f"{type(decoder).__name__} takes {wanted}; given: {', '.join(others) or 'none'}")
    if tokenizer is None and any(isinstance(prompt, str) for prompt in prompts):
        raise ValueError("prompts are texts: give tokenizer=, or ids instead")
    models = Models({first: model} | {role: others[role] for role in rest})
    for role, kind in decoder.roles.items():
        _check_kind(role, kind, models[role])
    ids = [
        torch.as_tensor(tokenizer.encode(p, add_special_tokens=False) if isinstance(p, str) else p).long()
        for p in prompts
    ]
    if stop is None:
        ends = tokenizer.eos_token_id if tokenizer else model.config.eos_token_id
        stop = Stop(frozenset([ends] if isinstance(ends, int) else ends or []))
    for role in decoder.roles:
        _check_context(role, models[role], ids, max_new_tokens)
    return decoder.decode(models, ids, max_new_tokens, stop, list(seeds or range(len(ids))))


def _check_kind(role: str, kind: str, model: torch.nn.Module) -> None:
    denoiser = hasattr(model, "lookback") and getattr(model.config, "mask_token_id", None) is not None
    found = "drafter" if hasattr(model, "draft_ids") else "diffusion" if denoiser else "causal"
    if found != kind:
        raise ValueError(
            f"{role}: {type(model).__name__} is a {found} model, and the role needs {KINDS[kind]}"
        )


def _check_context(
    role: str, model: torch.nn.Module, prompts: Sequence[torch.Tensor], max_new_tokens: int
) -> None:
    context = getattr(model.config, "max_position_embeddings", None) or float("inf")
    for i, prompt in enumerate(prompts):
        if len(prompt) + max_new_tokens > context:
            raise ValueError(
                f"prompt {i}: its {len(prompt)} tokens and max_new_tokens={max_new_tokens} do not fit the "
                f"{role}'s context of {context} tokens"
            )
