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
    Qwen3Config,
)

import dream  # noqa: F401  (registers the published layouts with transformers)
import llada  # noqa: F401
from unmask.models.drafter import ARCHITECTURE, DFlashDraftModel, is_drafter
from unmask.models.loading import DIFFUSION
from unmask.training import objectives
from unmask.training import tokenizer as shared_tokenizer
from unmask.training.lora import add_adapter
from unmask.training.objectives import STUDENT
from unmask.training.recipe import TrainConfig, find_folder
from unmask.training.refusal import reason

PUBLISHED = {"rope_theta"}  # fields that a config.json has and transformers turns into others


def build_tokenizer(cfg: TrainConfig) -> PreTrainedTokenizerBase:
    """The parent's or the target's tokenizer, or the tiny family's, which takes ten seconds to make."""
    for key, folder in (("init_from", cfg.init_from), ("frozen.target", cfg.frozen.get("target"))):
        if folder is not None:
            return _pretrained(AutoTokenizer, key, folder)
    return shared_tokenizer.build()


def build_models(cfg: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.nn.Module]:
    """The student and the frozen models, by role, in float32 on the CPU.

    A frozen role that the recipe names no folder for is a copy of the student as it starts; with LoRA it is
    left out, since the student with its adapter switched off is that model. ValueError where a model does
    not fit its role, its folder cannot be read, or two vocabularies differ.
    """
    roles = objectives.find(cfg.objective).roles
    others = roles.keys() - {STUDENT}
    models = {role: load_frozen(cfg, role, tokenizer) for role in others if cfg.frozen.get(role) is not None}
    if roles[STUDENT] == "drafter":
        student = build_drafter(cfg, tokenizer, models["target"].config)
    else:
        student = build_student(cfg, tokenizer)
    _check_kind(f"objective={cfg.objective}", student.config, roles[STUDENT])
    models[STUDENT] = student
    for role in others - models.keys():
        if cfg.lora is None:
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


def build_drafter(
    cfg: TrainConfig, tokenizer: PreTrainedTokenizerBase, target: PretrainedConfig
) -> torch.nn.Module:
    """DFlash's drafter of the target: `architecture` has Qwen3's fields for its layers, target_layer_ids and,
    where the tokenizer has no mask token, mask_token_id. Width, vocabulary and rotation are the target's."""
    if cfg.init_from is not None:
        return _pretrained(DFlashDraftModel, "init_from", cfg.init_from, dtype=torch.float32)
    fields = dict(cfg.architecture)
    dflash = {
        "target_layer_ids": fields.pop("target_layer_ids", None),
        "mask_token_id": fields.pop("mask_token_id", tokenizer.mask_token_id),
    }
    for name, value in dflash.items():
        if value is None:
            raise ValueError(f"architecture.{name}: a drafter needs it")
    if not all(0 <= layer < target.num_hidden_layers for layer in dflash["target_layer_ids"]):
        raise ValueError(
            f"architecture.target_layer_ids={dflash['target_layer_ids']}: the target has "
            f"{target.num_hidden_layers} layers"
        )
    if fields.pop("model_type", "qwen3") != "qwen3":
        raise ValueError(f"architecture.model_type={cfg.architecture['model_type']}: a drafter is of qwen3")
    if unknown := [key for key in fields if not hasattr(Qwen3Config(), key)]:
        raise ValueError(f"architecture: a drafter has no {', '.join(unknown)}")
    fields.setdefault("head_dim", target.hidden_size // fields.get("num_attention_heads", 1))
    config = Qwen3Config(
        **fields,
        hidden_size=target.hidden_size,
        vocab_size=target.vocab_size,
        max_position_embeddings=target.max_position_embeddings,
        rope_parameters=target.rope_parameters,
        rms_norm_eps=target.rms_norm_eps,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        architectures=[ARCHITECTURE],
    )
    config.dflash_config, config.num_target_layers = dflash, target.num_hidden_layers
    config.block_size = objectives.typed(cfg.objective, cfg.objective_options)["block_length"]
    torch.manual_seed(cfg.seed)
    return DFlashDraftModel(config)


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
    kind = "drafter" if is_drafter(config) else "diffusion" if config.model_type in DIFFUSION else "causal"
    if kind != wanted:
        raise ValueError(f"{what}: needs a {wanted} model, and model_type={config.model_type} is {kind}")


def _pretrained(loader: type, key: str, folder: str, **kwargs):
    place = find_folder(key, folder)
    try:
        return loader.from_pretrained(place, **kwargs)
    except Exception as error:  # damaged files: each its own type
        raise ValueError(f"{key}={folder}: cannot be loaded ({reason(error)})") from error
