"""An arm: one model, decoder, batch size and dtype, ready to answer the same prompts as the other arms."""

from dataclasses import dataclass, replace

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from unmask.config import RandomModel
from unmask.decoding import Decoder, Generation, Models, Stop
from unmask.evaluation import Evaluation, build_decoder, check_pairing
from unmask.models.loading import Source, choose_device, choose_dtype, random_model


@dataclass(frozen=True)
class Arm:
    name: str
    decoder: Decoder
    models: Models
    prompts: list[Tensor]  # 1-D ids
    stop: Stop
    budget: int
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
                self.models, [self.prompts[i] for i in numbers], self.budget, self.stop, seeds
            )
        return generations


def build(name: str, cfg: DictConfig) -> Arm:
    """An arm from a composed configuration (config.BenchConfig); ValueError where eval.py would raise one."""
    settings = OmegaConf.to_object(cfg)
    if isinstance(settings.model, RandomModel):
        arm = _random(name, settings)
    else:
        evaluation = Evaluation(cfg)
        models = _models(evaluation.cfg, evaluation.decoder, evaluation.device, evaluation.dtype)
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
            settings.task.budget,
            evaluation.cfg.batch_size,
            settings.seed,
        )
    if settings.tokens is not None:
        arm = replace(
            arm, stop=Stop(match=lambda ids: settings.tokens if len(ids) >= settings.tokens else None)
        )
    return arm


def _random(name: str, settings) -> Arm:
    """Random weights and random prompts, which nothing ends but the canvas."""
    decoder = build_decoder(settings.decoder)
    auxiliary = (settings.auxiliary or None) if decoder.needs_auxiliary else None
    check_pairing(settings.model, auxiliary, decoder, settings.decoder["_target_"])
    decoder.check(settings.task.budget)
    if auxiliary and not isinstance(auxiliary, RandomModel):
        raise ValueError(f"auxiliary={auxiliary.name}: model=random goes with auxiliary=random")
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    models = _models(settings, decoder, device, dtype)
    generator = torch.Generator().manual_seed(settings.seed)
    words = (
        min(m.config.vocab_size for m in (models.main, models.auxiliary) if m) * 9 // 10
    )  # special ids come last
    prompts = [
        torch.randint(words, (settings.prompt_length,), generator=generator) for _ in range(settings.prompts)
    ]
    return Arm(
        name, decoder, models, prompts, Stop(), settings.task.budget, settings.batch_size, settings.seed
    )


def _models(settings, decoder: Decoder, device: torch.device, dtype: torch.dtype) -> Models:
    wanted = (settings.model, settings.auxiliary if decoder.needs_auxiliary else None)
    models = Models(*(m and _load(m, device, dtype, settings.compile) for m in wanted))
    return models.compiled() if settings.compile else models


_loaded: dict = {}


def _load(settings, device: torch.device, dtype: torch.dtype, compiled: bool) -> torch.nn.Module:
    """Arms of the same model share its weights; but compiling changes a model, so compiled ones are
    others."""
    key = (repr(settings), device, dtype, compiled)
    if key not in _loaded:
        model = (
            random_model(settings)
            if isinstance(settings, RandomModel)
            else Source(settings).load(device, dtype)
        )
        _loaded[key] = model.to(device, dtype).eval()
    return _loaded[key]
