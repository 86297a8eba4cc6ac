"""How good and how fast a model is while it trains: greedy answers to validation problems, which are neither
trained on nor test problems."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers import PreTrainedTokenizerBase

from unmask.configuration.composition import composed
from unmask.configuration.settings import build_decoder
from unmask.decoding import Decoder, Models, Stop
from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.leftright import LeftRight
from unmask.paths import ROOT
from unmask.tasks import problems
from unmask.training.objectives import STUDENT, Objective
from unmask.training.refusal import reason
from unmask.training.sources import chat_prompt

BATCH = 16
DEFAULTS: dict[str, type[Decoder]] = {"diffusion": LeftRight, "causal": Autoregressive}


@dataclass
class Validation:
    """Accuracy, and useful tokens a step, on the first `count` validation problems of a task, once for each
    decoder.

    decoders: by column of the curve; the first column is "accuracy". Speeds stand in columns of the
        same names with "tokens_per_step" for "accuracy".
    every: training tokens between two measurements.
    """

    tokenizer: PreTrainedTokenizerBase
    count: int
    max_new_tokens: int
    every: int
    decoders: Mapping[str, Decoder] = field(default_factory=lambda: {"accuracy": LeftRight()})
    task: str = "gsm_symbolic"

    def __call__(self, objective: Objective) -> dict[str, float]:
        """What was measured, by column. Leaves the objective in training mode, its random numbers alone."""
        objective.eval()
        found = problems.held_out(self.task, "validation")[: self.count]
        accuracies, speeds = {}, {}
        for column, decoder in self.decoders.items():
            speed = column.replace("accuracy", "tokens_per_step", 1)
            accuracies[column], speeds[speed] = self._answers(decoder, players(decoder, objective), found)
        objective.train()
        return accuracies | speeds

    def _answers(
        self, decoder: Decoder, models: Models, found: Sequence[problems.Problem]
    ) -> tuple[float, float]:
        """(accuracy, useful tokens a step)."""
        texts = [chat_prompt(self.tokenizer, problem.question) for problem in found]
        prompts = [torch.tensor(self.tokenizer.encode(text)) for text in texts]
        stop = Stop(frozenset({self.tokenizer.eos_token_id}))
        right = tokens = steps = 0
        for start in range(0, len(found), BATCH):
            batch = slice(start, start + BATCH)
            seeds = [0] * len(prompts[batch])
            answers = decoder.decode(models, prompts[batch], self.max_new_tokens, stop, seeds)
            for problem, answer in zip(found[batch], answers, strict=True):
                numbers = re.findall(r"\d+", self.tokenizer.decode(answer.ids[: answer.useful]))
                right += numbers[-1:] == [problem.answer]
                tokens += answer.useful
                steps += len(answer.steps)
        return right / len(found), tokens / steps


def players(decoder: Decoder, objective: Objective) -> Models:
    """The models that a decoder runs on: the objective's frozen one of the same role, else the student."""
    frozen = {role: getattr(objective, role, objective.student) for role in objective.frozen_roles}
    return Models({role: frozen.get(role, objective.student) for role in decoder.roles})


def decoders(
    settings: Sequence[str] | None, roles: Mapping[str, str], max_new_tokens: int, model: str
) -> dict[str, Decoder]:
    """The decoders that validation watches, by column of the curve.

    settings: each "NAME" or "NAME KEY=VALUE ...", as eval.py's decoder=NAME decoder.KEY=VALUE; None: left to
        right, one token a step.
    roles: the objective's. model: the name whose eval_config/model/ settings (schedule, temperature) apply,
        where there is such a file.
    ValueError for a decoder that there is not, that does not fit max_new_tokens, or that needs other models.
    """
    if settings is None:
        if roles[STUDENT] not in DEFAULTS:
            raise ValueError(
                f"validation_decoders: none by default for a {roles[STUDENT]} model; name one, or set "
                "validation_problems=0"
            )
        return {"accuracy": DEFAULTS[roles[STUDENT]]()}
    if not settings:
        raise ValueError("validation_decoders is empty: name decoders, or null for the default")
    found: dict[str, Decoder] = {}
    for words in settings:
        column = "_".join(("accuracy", *words.split())) if found else "accuracy"
        if column in found:
            raise ValueError(f"validation_decoders: {words!r} is there twice")
        found[column] = build(words, model)
        check_players(words, found[column], roles)
        found[column].check(max_new_tokens)
    return found


def build(words: str, model: str) -> Decoder:
    """The decoder of "NAME KEY=VALUE ..."; ValueError where there is none."""
    name, *settings = words.split() or [""]
    overrides = [f"decoder={name}", *(f"decoder.{setting}" for setting in settings)]
    if (ROOT / "eval_config" / "model" / f"{model}.yaml").exists():
        overrides.append(f"model={model}")
    try:
        return build_decoder(OmegaConf.to_container(composed("eval", overrides).decoder, resolve=True))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ValueError(
            f"validation_decoders: {words!r} is no decoder of eval.py: {reason(error)}"
        ) from error


def check_players(words: str, decoder: Decoder, roles: Mapping[str, str]) -> None:
    """ValueError unless every role of the decoder has a model of its kind while this objective trains."""
    for role, kind in decoder.roles.items():
        ours = roles.get(role, roles[STUDENT])
        if ours != kind:
            raise ValueError(
                f"validation_decoders: {words!r} needs a {kind} model as {role}, and this training has only "
                f"{', '.join(f'a {kind} {name}' for name, kind in roles.items())}"
            )
