"""The models that an objective needs: the student from its recipe, and its frozen company."""

from __future__ import annotations

import copy

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

import dream  # noqa: F401  (registers the published layouts with transformers)
import llada  # noqa: F401
from unmask.models.loading import DIFFUSION
from unmask.training import objectives
from unmask.training import tokenizer as shared_tokenizer
from unmask.training.lora import add_adapter
from unmask.training.objectives import STUDENT
from unmask.training.recipe import TrainConfig, find_folder
from unmask.training.refusal import reason

PUBLISHED = {"rope_theta"}  # fields that a config.json has and transformers turns into others


def build_tokenizer(cfg: TrainConfig) -> PreTrainedTokenizerBase:
    """The parent's tokenizer, or the tiny family's, which takes ten seconds to make."""
    if cfg.init_from is None:
        return shared_tokenizer.build()
    return _pretrained(AutoTokenizer, "init_from", cfg.init_from)


def build_models(cfg: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.nn.Module]:
    """The student and the frozen models, by role, in float32 on the CPU.

    A frozen role that the recipe names no folder for is a copy of the student as it starts; with LoRA it is
    left out, since the student with its adapter switched off is that model. ValueError where a model does
    not fit its role, its folder cannot be read, or two vocabularies differ.
    """
    roles = objectives.find(cfg.objective).roles
    student = build_student(cfg, tokenizer)
    _check_kind(f"objective={cfg.objective}", student.config, roles[STUDENT])
    models = {STUDENT: student}
    for role in roles.keys() - {STUDENT}:
        if cfg.frozen.get(role) is not None:
            models[role] = load_frozen(cfg, role, tokenizer)
        elif cfg.lora is None:
            models[role] = copy.deepcopy(student)
    if cfg.lora is not None:
        add_adapter(student, cfg.lora)
    return models


def build_student(cfg: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> torch.nn.Module:
    """A freshly initialised model of the recipe's architecture, with its parent's weights where it has
    one."""
    parent = None
    if cfg.init_from is not None:
        parent = _pretrained(AutoModelForCausalLM, "init_from", cfg.init_from, dtype=torch.float32)
    if cfg.architecture is None:
        return parent
    config = build_config(cfg.architecture, tokenizer)
    torch.manual_seed(cfg.seed)
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:  # widths that do not divide, and what else transformers refuses
        raise ValueError(f"architecture: {error}") from error
    if parent is not None:
        weights, known = parent.state_dict(), model.state_dict()
        # LLaDA's projections have no bias and Qwen2's have one: training makes up for it.
        weights = {k: w for k, w in weights.items() if k in known or not k.endswith("_proj.bias")}
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip()  # of perhaps many
            raise ValueError(
                f"init_from={cfg.init_from} does not have this recipe's architecture ({first})"
            ) from error
    return model


def build_config(architecture: dict, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """A transformers config of the recipe's fields and the tokenizer's ids; ValueError for an unknown
    field."""
    fields = dict(architecture)
    layout = fields.pop("model_type", None)
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    try:
        default = AutoConfig.for_model(layout)
        config = AutoConfig.for_model(layout, vocab_size=len(tokenizer), **special, **fields)
    except Exception as error:  # no such layout, a field of another type: each its own type
        raise ValueError(
            f"architecture: model_type={layout!r} cannot be made of these fields ({str(error)[:200]})"
        ) from error
    if unknown := [key for key in fields if not hasattr(default, key) and key not in PUBLISHED]:
        raise ValueError(f"architecture: a {layout} model has no {', '.join(unknown)}")
    if layout in DIFFUSION:
        if tokenizer.mask_token_id is None:
            raise ValueError("init_from: its tokenizer has no mask token, which a diffusion model needs")
        config.mask_token_id = tokenizer.mask_token_id
    return config


def load_frozen(cfg: TrainConfig, role: str, tokenizer: PreTrainedTokenizerBase) -> torch.nn.Module:
    """The frozen model of a role, from the folder that the recipe names."""
    key, folder = f"frozen.{role}", cfg.frozen[role]
    theirs = _pretrained(AutoTokenizer, key, folder)
    if theirs.get_vocab() != tokenizer.get_vocab():
        raise ValueError(f"{key}={folder}: has another vocabulary than the model that is trained")
    model = _pretrained(AutoModelForCausalLM, key, folder, dtype=torch.float32)
    _check_kind(f"{key}={folder}", model.config, objectives.find(cfg.objective).roles[role])
    return model


def _check_kind(what: str, config: PretrainedConfig, wanted: str) -> None:
    kind = "diffusion" if config.model_type in DIFFUSION else "causal"
    if kind != wanted:
        raise ValueError(f"{what}: needs a {wanted} model, and model_type={config.model_type} is {kind}")


def _pretrained(loader: type, key: str, folder: str, **kwargs):
    place = find_folder(key, folder)
    try:
        return loader.from_pretrained(place, **kwargs)
    except Exception as error:  # damaged files: each its own type
        raise ValueError(f"{key}={folder}: cannot be loaded ({reason(error)})") from error
