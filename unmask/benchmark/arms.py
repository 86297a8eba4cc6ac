"""An arm: one model, decoder, batch size and dtype, ready to answer the same prompts as the other arms."""

from dataclasses import dataclass, replace

import torch
from omegaconf import DictConfig
from torch import Tensor

from unmask.benchmark.given import given
from unmask.configuration.settings import build_decoder, models_by_role, typed
from unmask.decoding import Decoder, Generation, Models, Stop
from unmask.evaluation.evaluation import Evaluation
from unmask.models.heads import use_row_products
from unmask.models.loading import Source, on_same_weights
from unmask.models.random_weights import random_model
from unmask.models.resources import check_device, choose_device, choose_dtype, set_for_cpu
from unmask.models.settings import RandomModel


@dataclass(frozen=True)
class Arm:
    name: str
    decoder: Decoder
    models: Models
    prompts: list[Tensor]  # 1-D ids
    stop: Stop
    max_new_tokens: int
    batch_size: int
    seed: int = 0

    def answer(self, start: int, count: int) -> list[Generation]:
        """Decode prompts start .. start + count - 1, batch after batch. A prompt's seed is its number, in
        every arm."""
        generations = []
        for first in range(start, start + count, self.batch_size):
            numbers = range(first, min(first + self.batch_size, start + count))
            seeds = [self.seed * 1_000_003 + i for i in numbers]
            generations += self.decoder.decode(
                self.models, [self.prompts[i] for i in numbers], self.max_new_tokens, self.stop, seeds
            )
        return generations


def build(name: str, cfg: DictConfig) -> Arm:
    """An arm from a composed configuration (config.BenchConfig); ValueError where eval.py would raise one."""
    settings = typed(cfg)
    if isinstance(settings.model, RandomModel):
        arm = _random(name, settings)
    else:
        evaluation = Evaluation(cfg)
        device = check_device(evaluation.device)
        models = _models(evaluation.cfg, evaluation.decoder, device, evaluation.dtype)
        requests = evaluation.requests[: settings.prompts]
        if len(requests) < settings.prompts:
            raise ValueError(
                f"prompts={settings.prompts}: with this limit task {settings.task.name} has {len(requests)}"
            )
        arm = Arm(
            name,
            evaluation.decoder,
            models,
            evaluation.lm.prompts(requests),
            evaluation.stop,
            settings.task.max_new_tokens,
            evaluation.cfg.batch_size,
            settings.seed,
        )
    if settings.acceptance is not None:
        arm = replace(arm, decoder=given(arm.decoder, settings.acceptance))
    if settings.tokens is not None:
        arm = replace(
            arm, stop=Stop(match=lambda ids, _: settings.tokens if len(ids) >= settings.tokens else None)
        )
    return arm


def _random(name: str, settings) -> Arm:
    """Random weights and random prompts, which nothing ends but the canvas."""
    decoder = build_decoder(settings.decoder)
    by_role = models_by_role(settings, decoder)
    decoder.check(settings.task.max_new_tokens, settings.model.vocabulary)
    for role, model in by_role.items():
        if not isinstance(model, RandomModel):
            fitting = "random_drafter" if decoder.roles[role] == "drafter" else "random_causal"
            raise ValueError(f"{role}={model.name}: model={settings.model.name} goes with {role}={fitting}")
    drafter, target = by_role.get("drafter"), settings.model
    if (
        drafter
        and drafter.kind == "drafter"
        and not (drafter.width == target.width and drafter.depth <= target.depth)
    ):
        raise ValueError(
            f"drafter.width={drafter.width} must be the target's {target.width}, and "
            f"drafter.depth={drafter.depth} at most its {target.depth}"
        )
    device = check_device(choose_device(settings.device))
    models = _models(settings, decoder, device, choose_dtype(settings.dtype, device))
    generator = torch.Generator().manual_seed(settings.seed)
    # Special ids come last.
    words = min(model.config.vocab_size for model in models.by_role.values()) * 9 // 10
    shape = (settings.prompt_length,)
    prompts = [torch.randint(words, shape, generator=generator) for _ in range(settings.prompts)]
    return Arm(
        name,
        decoder,
        models,
        prompts,
        Stop(),
        settings.task.max_new_tokens,
        settings.batch_size,
        settings.seed,
    )


def _models(settings, decoder: Decoder, device: torch.device, dtype: torch.dtype) -> Models:
    set_for_cpu(device)
    by_role = models_by_role(settings, decoder)
    models = Models({role: _load(m, role, device, dtype, settings.compile) for role, m in by_role.items()})
    return models.compiled() if settings.compile else models


_loaded: dict = {}


def _load(settings, role: str, device: torch.device, dtype: torch.dtype, compiled: bool) -> torch.nn.Module:
    """Arms of the same model share its weights. Compiling changes a module, so compiled ones are others, and
    so are those of drafters, since a model that drafts for itself counts its forwards twice."""
    key = repr(settings), device, dtype
    if key not in _loaded:
        if isinstance(settings, RandomModel):
            _loaded[key] = random_model(settings, device, dtype).eval()
            if device.type == "cpu":
                use_row_products(_loaded[key])  # as loading does
        else:
            _loaded[key] = Source(settings).load(device, dtype)
    module = (*key, compiled, role == "drafter")
    if module not in _loaded:
        _loaded[module] = on_same_weights(_loaded[key]) if any(module[-2:]) else _loaded[key]
    return _loaded[module]
