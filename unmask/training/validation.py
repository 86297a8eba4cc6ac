"""How good and how fast a model is while it trains: greedy answers to validation problems, which are neither
trained on nor test problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import torch
from hydra.errors import HydraException
from lm_eval.api.task import Task
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers import PreTrainedTokenizerBase

from unmask.configuration.composition import composed
from unmask.configuration.settings import build_decoder
from unmask.decoding import Decoder, Generation, Models, Stop
from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.leftright import LeftRight
from unmask.evaluation.prompts import prompt_ids
from unmask.paths import CONFIGURATIONS
from unmask.records.stats import wilson
from unmask.tasks import prepare, score_answers
from unmask.training.objectives import STUDENT, Objective
from unmask.training.refusal import reason

BATCH = 16
METRIC = "exact_match,flexible-extract"  # of the generated tasks: the last number of the answer
DEFAULTS: dict[str, type[Decoder]] = {"diffusion": LeftRight, "causal": Autoregressive}


@dataclass
class Validation:
    """Accuracy, and useful tokens a step, on the first `count` validation problems of a task, once for each
    decoder. Prompts and scores are those of an evaluation of the task with split=validation.

    decoders: by column of the curve; the first column is "accuracy". Their other columns have the same name
        with another beginning: "low_accuracy" and "high_accuracy" (Wilson, 95%), "tokens_per_step".
    every: training tokens between two measurements.
    """

    tokenizer: PreTrainedTokenizerBase
    count: int
    max_new_tokens: int
    every: int
    decoders: Mapping[str, Decoder] = field(default_factory=lambda: {"accuracy": LeftRight()})
    task: str = "gsm_symbolic"

    @cached_property
    def _task(self) -> Task:
        _, tasks = prepare(self.task, split="validation")
        return tasks[self.task]

    @cached_property
    def _prompts(self) -> list[torch.Tensor]:
        documents = islice(self._task.eval_docs, self.count)
        questions = (self._task.doc_to_text(document) for document in documents)
        return [torch.tensor(prompt_ids(self.tokenizer, question)) for question in questions]

    def __call__(self, objective: Objective) -> dict[str, float]:
        """What was measured, by column; "n": the number of problems. Leaves the objective in training mode,
        its random numbers alone."""
        objective.eval()
        measured: dict[str, float] = {"n": len(self._prompts)}
        speeds = {}
        for column, decoder in self.decoders.items():
            answers = self._answers(decoder, players(decoder, objective))
            accuracy = wilson(self._right(answers), len(answers))
            measured |= {
                column: accuracy.value,
                f"low_{column}": accuracy.low,
                f"high_{column}": accuracy.high,
            }
            tokens, steps = sum(a.useful for a in answers), sum(len(a.steps) for a in answers)
            speeds[column.replace("accuracy", "tokens_per_step", 1)] = tokens / steps
        objective.train()
        return measured | speeds

    def _answers(self, decoder: Decoder, models: Models) -> list[Generation]:
        stop = Stop(frozenset({self.tokenizer.eos_token_id}))
        found: list[Generation] = []
        for start in range(0, len(self._prompts), BATCH):
            prompts = self._prompts[start : start + BATCH]
            found += decoder.decode(models, prompts, self.max_new_tokens, stop, [0] * len(prompts))
        return found

    def _right(self, answers: Sequence[Generation]) -> float:
        """How many answers are right, by the task's deciding metric."""
        texts = {
            number: self.tokenizer.decode(answer.ids[: answer.useful], skip_special_tokens=True)
            for number, answer in enumerate(answers)
        }
        return sum(row["correct"] for row in score_answers(self._task, texts) if row["metric"] == METRIC)


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
        if not isinstance(words, str):
            raise ValueError(f"validation_decoders: {words!r} is no text as in leftright tokens_per_step=4")
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
    if (CONFIGURATIONS / "model" / f"{model}.yaml").exists():
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
