"""From a composed configuration to checked settings: the decoder, its models by role, a run's identity.

Nothing here loads a model, reads weights or writes; whatever is wrong is a ValueError that names the key.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from hydra.utils import get_class
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unmask.configuration.composition import CONFIGURATIONS, SPELLED, composed
from unmask.configuration.schema import EvalConfig
from unmask.configuration.sweeps import STRUCTURE, expand, key_of
from unmask.decoding import Decoder
from unmask.decoding.quotas import SCHEDULES
from unmask.decoding.sampling import at_least_one
from unmask.models.loading import identity_of_model
from unmask.models.resources import choose_device, choose_dtype
from unmask.models.settings import ModelConfig, RandomModel
from unmask.paths import ROOT, may_be_folder
from unmask.records.naming import check_name

ATTENTIONS = ("full", "block_causal")
BESIDE_ANSWERS = ("limit", "subset_seed", "documents", "data", "metric", "yaml")  # settings of a task
PLAIN_PROMPT = {  # settings of a prompt that are left out of the identity, as OFF is
    "prompt": "chat",
    "bos": False,
    "suffix": "",
    "gen_prefix": None,
    "shots": "first",
    "shot_processes": 1,
}
OFF = "none"  # a setting that is off is left out of the identity: a new one changes no older run
FITTING = {  # a decoder that runs on such a model
    "causal": "autoregressive",
    "diffusion": "apd",
    "uniform_diffusion": "transformers_diffusion",
}


def typed(cfg: DictConfig) -> EvalConfig:
    """The configuration as its dataclasses, with what can be checked before anything is built."""
    try:
        found = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}") from error
    _check_keys(cfg)
    for key, folder in {"results": found.results, "run_folder": found.run_folder}.items():
        if folder is None or folder.endswith(".parquet"):  # an archive is a file
            continue
        if not folder.strip() or not may_be_folder(ROOT / folder):
            raise ValueError(f"{key}={folder[:100]!r}: is no folder, and none can be made there")
    for role, settings in list(found.models.items()):
        if not settings:  # ROLE=none
            del found.models[role]
        elif not isinstance(settings, ModelConfig):
            raise ValueError(f"{role}={settings}: must be a choice of the group model (see --help), or none")
    for key, settings in {"model": found.model, "task": found.task, **found.models}.items():
        check_name(f"{key}.name", settings.name)
    at_least_one(limit=found.limit, threads=found.threads)
    if type(found.warm_up) is not int or found.warm_up < 0:
        raise ValueError(f"warm_up={found.warm_up!r} must be a whole number, 0 or more")
    if found.check_lossless is not None and (
        type(found.check_lossless) is not int or found.check_lossless < 0
    ):
        raise ValueError(f"check_lossless={found.check_lossless!r} must be a whole number, 0 or more")
    if found.show not in (None, "prompt"):
        raise ValueError(f"show={found.show}: must be prompt, or null")
    if found.batch_size != "auto":
        at_least_one(batch_size=found.batch_size)
    at_least_one(mc_samples=found.mc_samples, mc_batch=found.mc_batch)
    if found.mc_samples % found.mc_batch:
        raise ValueError(f"mc_samples={found.mc_samples} must be a multiple of mc_batch={found.mc_batch}")
    if found.compile and found.batch_size == "auto":
        raise ValueError("compile=true keeps a cache for each padded length: give batch_size a number")
    return found


def _check_keys(cfg: DictConfig) -> None:
    """ValueError for a key that no dataclass has: Hydra's + and ++ add any."""
    nodes = {"": cfg, "model.": cfg.model, "task.": cfg.task}
    nodes |= {f"{role}.": settings for role, settings in cfg.models.items()}
    for prefix, node in nodes.items():
        kind = OmegaConf.get_type(node)
        if unknown := is_dataclass(kind) and set(node) - {field.name for field in fields(kind)}:
            raise ValueError(f"{prefix}{min(map(str, unknown))}: is no setting")


def build_decoder(settings: Any) -> Decoder:
    """The decoder that `_target_` names, with its settings; ValueError naming the key that is wrong."""
    if not isinstance(settings, Mapping) or not isinstance(settings.get("_target_"), str):
        raise ValueError(f"decoder={settings}: must be a choice of the group decoder (see --help)")
    fields = {key: value for key, value in settings.items() if key not in ("_target_", "name")}
    target = settings["_target_"]
    try:
        kind = get_class(target)
    except Exception as error:  # no such module, no such name, no class: each its own type
        reason = str(error)[:200]
        raise ValueError(f"decoder._target_={target[:100]}: cannot be imported ({reason})") from error
    if not issubclass(kind, Decoder):
        raise ValueError(f"decoder._target_={target}: is no Decoder")
    name = settings.get("name")
    check_name("decoder.name", name)
    if target.startswith("unmask.") and not (CONFIGURATIONS / "decoder" / f"{name}.yaml").exists():
        raise ValueError(
            f"decoder.name={name}: is no choice of the group decoder (see --help); another name is for a "
            "decoder._target_ of your own"
        )
    try:
        return kind(**fields)
    except TypeError as error:  # a key that its dataclass does not have, or a value of a strange type
        raise ValueError(f"decoder={settings['name']}: {error}") from error


def models_by_role(cfg: EvalConfig, decoder: Decoder) -> dict[str, ModelConfig]:
    """The model settings of each of the decoder's roles: `model` for the first one, `models` for the others.

    ValueError where one is missing or of the wrong kind, or where a model has a role that nobody knows.
    """
    first, *others = decoder.roles
    name = cfg.decoder["name"]
    for role in cfg.models.keys() - {*others, *SPELLED}:
        raise ValueError(
            f"{role}={cfg.models[role].name}: is no setting, and decoder={name} has no role {role} (it has "
            f"{', '.join(decoder.roles)})"
        )
    found = {first: cfg.model} | {role: cfg.models.get(role) for role in others}
    for role, settings in found.items():
        kind, key = decoder.roles[role], "model" if role == first else role
        if settings is None:
            raise ValueError(f"decoder={name} needs a {kind} model as {role}: {key}={_models_of(kind)}")
        if not all(isinstance(token, str) for token in settings.end_tokens):
            raise ValueError(f"{key}.end_tokens={settings.end_tokens}: must be a list of tokens")
        if settings.attention not in ATTENTIONS:
            raise ValueError(f"{key}.attention={settings.attention!r}: must be {' or '.join(ATTENTIONS)}")
        if settings.schedule not in SCHEDULES:
            raise ValueError(f"{key}.schedule={settings.schedule!r}: must be one of {', '.join(SCHEDULES)}")
        if settings.kind != kind:
            keep = f", or keep the model and take decoder={FITTING.get(settings.kind)}"
            raise ValueError(
                f"decoder={name} needs a {kind} model as {role}, and {key}={settings.name} is "
                f"{settings.kind}: try {key}={_models_of(kind)}"
                + keep
                * (role == first and settings.kind in FITTING)
            )
    if cfg.compile and not decoder.compiles:
        raise ValueError(f"decoder={name} is transformers' own loop, not compiled: remove compile=true")
    if decoder.attention == "block_causal" and cfg.model.attention != decoder.attention and not cfg.force:
        raise ValueError(
            f"decoder={name} runs on a block-causal model, and model={cfg.model.name} was trained to see "
            "what stands right of a block: try model=tiny_d2f_dream (python train.py recipe=tiny_d2f_dream), "
            "or force=true to see what happens"
        )
    return found


def _models_of(kind: str) -> str:
    """The choices of the group `model` that are of this kind, this project's own first."""
    files = sorted((CONFIGURATIONS / "model").glob("*.yaml"), key=lambda f: (f.stem[:4] != "tiny", f.stem))
    names = [f.stem for f in files if re.search(rf"^kind: {kind}\b", f.read_text(), re.MULTILINE)]
    return " or ".join(names[:3])


def remarks(cfg: EvalConfig, decoder: Decoder) -> list[str]:
    """What is unusual about running this decoder on this model, and allowed."""
    model, name = cfg.model, cfg.decoder["name"]
    if model.kind != "diffusion":
        return []
    if decoder.attention != model.attention:
        right = (
            "hides what stands right of a block" if decoder.attention == "block_causal" else "shows it all"
        )
        return [f"{model.name} was trained with {model.attention} attention, and decoder={name} {right}"]
    if model.attention == "block_causal" and decoder.block_length != model.block_length:
        return [
            f"{model.name} was trained with blocks of {model.block_length}, and decoder.block_length="
            f"{decoder.block_length}"
        ]
    return []


def identity_of(cfg: EvalConfig | DictConfig) -> dict:
    """A run's identity as far as the configuration alone tells it.

    Everything that decides an answer or its cost, but for the fingerprints of the weights and of the prompts
    (`Evaluation.identity` adds these). Which documents are drawn is not among it: another draw extends the
    same run. Nor is what only scores, or only says where files lie.
    """
    cfg = typed(cfg) if isinstance(cfg, DictConfig) else cfg
    decoder = build_decoder(cfg.decoder)
    chosen = {key: value for key, value in cfg.decoder.items() if key != "_target_" and value != OFF}
    chosen |= decoder.contents
    # Where nothing is tempered both ranks are one, and the identity names the model's.
    if "rank_tempered" in chosen and not getattr(decoder, "tempers", True):
        chosen["rank_tempered"] = cfg.model.rank_tempered
    models = models_by_role(cfg, decoder)
    task = {
        key: value
        for key, value in asdict(cfg.task).items()
        if key not in BESIDE_ANSWERS and PLAIN_PROMPT.get(key, MISSING) != value
    }
    return {
        "models": {role: identity_of_model(settings) for role, settings in models.items()},
        "roles": list(models),
        "decoder": chosen,
        "task": task,
        **machinery_of(cfg),
        "compile": cfg.compile,
    }


def machinery_of(cfg: EvalConfig) -> dict:
    """Of an identity: how something is computed, whatever it is."""
    device = choose_device(cfg.device)
    return {
        "seed": cfg.seed,
        "batch_size": cfg.batch_size,
        "device": device.type,
        "dtype": str(choose_dtype(cfg.dtype, device)).removeprefix("torch."),
        "threads": cfg.threads if device.type == "cpu" else None,
    }


# Settings without effect

RUNNING = ("seed", "device", "dtype", "threads", "compile", "limit", "force", "allow_code_execution")
RECORDING = ("batch_size", "results", "run_folder", "trace", "show", "warm_up", "shard", "interleave")
READS = {  # by command, what it reads beside decoder, models and task
    "eval": (*RUNNING, *RECORDING),
    "report": (*RUNNING, *RECORDING, "published", "pictures", "page"),
    "harness": (*RUNNING[:5], "force", "batch_size", "results"),
    "demo": (*RUNNING, "prompt", "document", "compare", "slow", "save"),
    "bench": (
        *RUNNING,
        "batch_size",
        *("prompts", "rounds", "tokens", "acceptance", "sweep", "points", "report"),
    ),
}
OF_DECODERS = ("temperature", "top_p", "schedule", "rank_tempered", "blocks", "edits", "end_rules")
"""Settings of a model that its decoder takes over, or does not."""
LIKELIHOODS = ("mc_samples", "mc_batch", "check_greedy")


def check_effects(
    command: str, given: Sequence[str], settings: Iterable[Sequence[str]] | None = None
) -> None:
    """ValueError for a word of a command that none of its settings reads.

    settings: the words of each; those of the command's own sweep where nothing is said. A word that gives a
    key the value that it has anyway may stay, and what is wrong in another way is left to who reads it.
    """
    try:
        settings = [list(words) for words in (expand(given) if settings is None else settings)]
    except ValueError:
        return
    for key in dict.fromkeys(word.partition("=")[0] for word in given):
        first, dot, _ = key_of(key).partition(".")
        if first in STRUCTURE or (first in SPELLED and dot):  # which says what a model is, not that it runs
            continue
        if not any(_is_read(command, key, words) for words in settings):
            said = next(word for word in given if word.partition("=")[0] == key)
            raise ValueError(f"{said[:100]}: has no effect with these settings of {command}.py, remove it")


def _is_read(command: str, key: str, words: Sequence[str]) -> bool:
    rest = [word for word in words if word.partition("=")[0] != key]
    if len(rest) == len(words):
        return False
    try:
        cfg = composed(command, words)
        if key in ("model", "task"):
            return True
        if key in ("decoder", *SPELLED):  # without composing anew, which takes Hydra a quarter of a second
            return not cfg.task.yaml and (key == "decoder" or _takes_part(key, cfg))
        return has_effect(command, cfg, composed(command, rest))
    except ValueError:
        return True


def _takes_part(role: str, cfg: DictConfig) -> bool:
    return not cfg.models.get(role) or role in build_decoder(cfg.decoder).roles


def has_effect(command: str, having: DictConfig, lacking: DictConfig) -> bool:
    """Whether a command can tell a configuration from the one without a setting, or the two are equal; also
    where one of them cannot be."""
    try:
        return having == lacking or read_by(command, having) != read_by(command, lacking)
    except ValueError:
        return True


def read_by(command: str, cfg: DictConfig) -> dict:
    """Everything of a configuration that a command reads."""
    found = typed(cfg)
    decoder, scored = build_decoder(found.decoder), bool(found.task.yaml)
    top, task = {key: getattr(found, key) for key in READS[command]}, asdict(found.task)
    models = {"model": found.model}
    if (scored or command == "harness") and found.model.kind == "diffusion":
        top |= {key: getattr(found, key) for key in LIKELIHOODS}
    if scored:
        top = {key: value for key, value in top.items() if key not in ("warm_up", "interleave")}
    else:
        models = models_by_role(found, decoder)
        top |= {"decoder": dict(found.decoder)}
    if command in ("demo", "bench"):
        del task["metric"]
    elif decoder.lossless and not scored and command != "harness":
        top["check_lossless"] = found.check_lossless
    if command == "bench":
        if not found.sweep:
            top["profile"] = found.profile
        if isinstance(found.model, RandomModel):
            top["prompt_length"] = found.prompt_length
            del top["limit"], top["force"], top["allow_code_execution"]
            task = {"max_new_tokens": found.task.max_new_tokens}
    return top | {"task": task, "models": {role: _loaded(model) for role, model in models.items()}}


def _loaded(model: ModelConfig) -> dict:
    return {key: value for key, value in asdict(model).items() if key not in OF_DECODERS}
