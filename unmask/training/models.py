"""The models that an objective needs: the student from its recipe, and its frozen models."""

from __future__ import annotations

import copy
import os
from functools import cache

import torch
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
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
from unmask.configuration.composition import composed
from unmask.models.drafter import ARCHITECTURE, DFlashDraftModel, at_least, is_drafter
from unmask.models.layouts import built_by
from unmask.models.loading import Source
from unmask.models.weights import load_weights
from unmask.training import objectives
from unmask.training import tokenizer as shared_tokenizer
from unmask.training.checking import MODEL, find_folder
from unmask.training.lora import add_adapter
from unmask.training.objectives import STUDENT
from unmask.training.recipe import TrainConfig
from unmask.training.refusal import reason

# fields that a drafter takes over from its target
TARGETS = {"hidden_size", "vocab_size", "max_position_embeddings", "rope_parameters", "rms_norm_eps"}
CPU = torch.device("cpu")
PUBLISHED = {"rope_theta"}  # fields that a config.json has and transformers turns into others


def build_tokenizer(cfg: TrainConfig) -> PreTrainedTokenizerBase:
    """The target's or the parent's tokenizer, or the tiny family's, which takes ten seconds to make. (A
    drafter has none of its own.)"""
    for key, folder in (("frozen.target", cfg.frozen.get("target")), ("init_from", cfg.init_from)):
        if folder is not None:
            return _tokenizer(key, folder)
    return shared_tokenizer.build()


def build_models(
    cfg: TrainConfig,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> dict[str, torch.nn.Module]:
    """The student and the frozen models, by role.

    What is trained is in float32. What is frozen (with LoRA the student but for its adapter, too) is in the
    `dtype` of the forwards, and read straight to the device: 7B in bfloat16 are 15 GB there and none in the
    host's memory, not 30 in both.

    A frozen role that the recipe names no folder for is a copy of the student as it starts; with LoRA it is
    left out, since the student with its adapter switched off is that model. ValueError where a model does
    not fit its role, its folder cannot be read, or two vocabularies differ.
    """
    roles = objectives.find(cfg.objective).roles
    others = roles.keys() - {STUDENT}
    named = [role for role in others if cfg.frozen.get(role) is not None]
    models = {role: load_frozen(cfg, role, tokenizer, device, dtype) for role in named}
    if roles[STUDENT] == "drafter":
        student = build_drafter(cfg, tokenizer, models["target"].config)
    else:
        student = build_student(cfg, tokenizer, *((device, dtype) if cfg.lora else ()))
    _check_kind(f"objective={cfg.objective}", student.config, roles[STUDENT])
    models[STUDENT] = student
    for role in others - models.keys():
        if cfg.lora is None:
            models[role] = copy.deepcopy(student).to(device, dtype)
    if cfg.lora is not None:
        add_adapter(student, cfg.lora)
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if cfg.checkpointing if cfg.checkpointing is not None else cfg.lora is not None:
        student.activation_checkpointing_enable({"use_reentrant": False})
    return models


def build_student(
    cfg: TrainConfig,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> torch.nn.Module:
    """A freshly initialised model of the recipe's architecture, with its parent's weights where it has
    one."""
    parent = None
    if cfg.init_from is not None:
        parent = _model(AutoModelForCausalLM, "init_from", cfg.init_from, device, dtype)
    if cfg.architecture is None:
        return parent
    config = build_config(cfg.architecture, tokenizer)
    try:
        _check_size(config)
        torch.manual_seed(cfg.seed)
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
    return model.to(device, dtype)


def _check_size(config: PretrainedConfig) -> None:
    """ValueError for a model whose float32 weights do not fit this machine's memory. Allocates none."""
    with torch.device("meta"):
        shapes = AutoModelForCausalLM.from_config(config)
    needed, memory = (
        4 * sum(p.numel() for p in shapes.parameters()),
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )
    if needed > memory:
        raise ValueError(f"{needed / 1e9:,.0f} GB of weights, and this machine has {memory / 1e9:,.0f} GB")


def build_drafter(
    cfg: TrainConfig, tokenizer: PreTrainedTokenizerBase, target: PretrainedConfig
) -> torch.nn.Module:
    """DFlash's drafter of the target: `architecture` has Qwen3's fields for its layers, target_layer_ids,
    where the tokenizer has no mask token mask_token_id, and where it drafts the most frequent ids alone
    draft_vocab_size. Width, vocabulary and rotation are the target's."""
    block = objectives.typed(cfg.objective, cfg.objective_options)["block_length"]
    if cfg.init_from is not None:
        drafter = _model(DFlashDraftModel, "init_from", cfg.init_from)
        drafter.config.block_size = block
        size = (cfg.architecture or {}).get("draft_vocab_size")
        if size is not None and size != getattr(drafter.config, "draft_vocab_size", None):
            raise ValueError(
                f"architecture.draft_vocab_size={size}: init_from={cfg.init_from} keeps the ids that it "
                "drafts; leave one of the two out"
            )
        return drafter
    fields = dict(cfg.architecture)
    if theirs := sorted(fields.keys() & TARGETS):
        raise ValueError(f"architecture: a drafter's {', '.join(theirs)} are those of its target")
    dflash = {
        "target_layer_ids": fields.pop("target_layer_ids", None),
        "mask_token_id": fields.pop("mask_token_id", tokenizer.mask_token_id),
    }
    for name, value in dflash.items():
        if value is None:
            raise ValueError(f"architecture.{name}: a drafter needs it")
    size = fields.pop("draft_vocab_size", None)
    if size is not None and not (at_least(size, 1) and size <= target.vocab_size):
        raise ValueError(
            f"architecture.draft_vocab_size={size}: must be from 1 to the {target.vocab_size:,} ids of "
            "the target"
        )
    layers = dflash["target_layer_ids"]
    known = range(-1, target.num_hidden_layers)  # -1: the embedding
    if not isinstance(layers, list) or not layers or not all(type(i) is int and i in known for i in layers):
        raise ValueError(
            f"architecture.target_layer_ids={layers}: must be a list of layers of the target, which has "
            f"{target.num_hidden_layers}"
        )
    if fields.pop("model_type", "qwen3") != "qwen3":
        raise ValueError(f"architecture.model_type={cfg.architecture['model_type']}: a drafter is of qwen3")
    if unknown := [key for key in fields if not hasattr(Qwen3Config(), key)]:
        raise ValueError(f"architecture: a drafter has no {', '.join(unknown)}")
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    try:
        heads, groups = fields["num_attention_heads"], fields["num_key_value_heads"]
        if target.hidden_size % heads or heads % groups:
            raise ValueError(f"{heads} heads and {groups} groups do not divide {target.hidden_size}")
        fields.setdefault("head_dim", target.hidden_size // heads)
        shared = {name: getattr(target, name) for name in TARGETS}
        config = Qwen3Config(**fields, **shared, **ids, architectures=[ARCHITECTURE])
        config.dflash_config, config.num_target_layers = dflash, target.num_hidden_layers
        config.block_size = block
        if size is not None:
            config.draft_vocab_size = size
        torch.manual_seed(cfg.seed)
        return DFlashDraftModel(config)
    except Exception as error:  # a field of another type, one that is missing: each its own type
        raise ValueError(
            f"architecture: makes no drafter ({type(error).__name__}: {str(error)[:200]})"
        ) from error


def build_config(architecture: dict, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """A transformers config of the recipe's fields and the tokenizer's ids; ValueError for an unknown
    field."""
    fields = dict(architecture)
    layout = fields.pop("model_type", None)
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    try:
        default = AutoConfig.for_model(layout)
        config = AutoConfig.for_model(layout, vocab_size=len(tokenizer), **special, **fields)
    except Exception as error:  # no such layout, a field of another type: each its own type
        raise ValueError(
            f"architecture: model_type={layout!r} cannot be made of these fields ({str(error)[:200]})"
        ) from error
    if unknown := [key for key in fields if not hasattr(default, key) and key not in PUBLISHED]:
        raise ValueError(f"architecture: a {layout} model has no {', '.join(unknown)}")
    if built_by(config):
        if tokenizer.mask_token_id is None:
            raise ValueError("init_from: its tokenizer has no mask token, which a diffusion model needs")
        config.mask_token_id = tokenizer.mask_token_id
    return config


def load_frozen(
    cfg: TrainConfig,
    role: str,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> torch.nn.Module:
    """The frozen model of a role, from the folder that the recipe names."""
    key, folder = f"frozen.{role}", cfg.frozen[role]
    theirs = _tokenizer(key, folder)
    if theirs.get_vocab() != tokenizer.get_vocab():
        raise ValueError(f"{key}={folder}: has another vocabulary than the model that is trained")
    if folder.startswith(MODEL):
        model = chosen(key, folder).load(device, dtype, private=True)
    else:
        model = _model(AutoModelForCausalLM, key, folder, device, dtype)
    _check_kind(f"{key}={folder}", model.config, objectives.find(cfg.objective).roles[role])
    return model


def _check_kind(what: str, config: PretrainedConfig, wanted: str) -> None:
    kind = "drafter" if is_drafter(config) else "diffusion" if built_by(config) else "causal"
    if kind != wanted:
        raise ValueError(f"{what}: needs a {wanted} model, and model_type={config.model_type} is {kind}")


@cache
def chosen(key: str, folder: str) -> Source:
    """What eval.py loads for model=NAME, of model:NAME; ValueError where it cannot. Read once: its tokenizer
    and its weights are wanted one after the other."""
    try:
        settings = composed("eval", [f"model={folder.removeprefix(MODEL)}"]).model
        return Source(OmegaConf.to_object(settings))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ValueError(f"{key}={folder}: {reason(error)}") from error


def _tokenizer(key: str, folder: str) -> PreTrainedTokenizerBase:
    if folder.startswith(MODEL):
        return chosen(key, folder).tokenizer
    return _pretrained(AutoTokenizer, key, folder)


def _model(
    loader: type, key: str, folder: str, device: torch.device = CPU, dtype: torch.dtype = torch.float32
) -> torch.nn.Module:
    where = {} if device.type == "cpu" else {"device_map": {"": device}}
    try:
        return load_weights(loader, str(find_folder(key, folder)), dtype=dtype, **where)
    except ValueError as error:
        raise ValueError(f"{key}={folder}: {error}") from error


def _pretrained(loader: type, key: str, folder: str):
    found = find_folder(key, folder)
    try:
        return loader.from_pretrained(found)
    except Exception as error:  # damaged files: each its own type
        raise ValueError(f"{key}={folder}: cannot be loaded ({reason(error)})") from error
