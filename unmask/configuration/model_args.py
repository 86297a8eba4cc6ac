"""lm-eval's `--model_args` as the configuration that eval.py composes, so that nothing is checked twice.

pretrained=checkpoints/tiny_dream,decoder=apd,auxiliary=checkpoints/tiny_qwen,mixture_weight=0.1

pretrained           model of the decoder's first role: a choice of eval_config/model, or the path of one
auxiliary, drafter   model of the decoder's other role: a choice of that group, or the path of one
decoder              a choice of eval_config/decoder; each of its settings by its own name
max_gen_toks         new tokens at most, where a task does not say; 256 as everywhere in lm-eval
device, dtype, seed, batch_size, threads, compile, force    as of eval.py
model.KEY, auxiliary.KEY, drafter.KEY                       any setting of a model, as of eval.py
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lm_eval.defaults import DEFAULT_MAX_GEN_TOKS
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unmask.configuration.composition import build_decoder, composed, typed
from unmask.configuration.schema import EvalConfig
from unmask.decoding.sampling import at_least_one
from unmask.paths import ROOT

GROUPS = {"pretrained": "model", "auxiliary": "auxiliary", "drafter": "drafter", "decoder": "decoder"}
SHARED = ("device", "dtype", "seed", "batch_size", "threads", "compile", "force")  # as eval.py calls them


def configuration(given: Mapping[str, Any]) -> EvalConfig:
    """The configuration of these model_args; its task tells nothing but max_new_tokens.

    ValueError names what is wrong, and for an unknown name all that there are.
    """
    for key in ("pretrained", "decoder"):
        if key not in given:
            raise ValueError(f"model_args: {key}= is missing; there are {', '.join(_choices(GROUPS[key]))}")
    choices = {"auxiliary": "none", "drafter": "none"}
    choices |= {group: _choice(key, given[key]) for key, group in GROUPS.items() if key in given}
    cfg = composed([f"{group}={choice}" for group, choice in choices.items()])
    places = _places(cfg)
    if unknown := given.keys() - places.keys():
        names = ", ".join(name for name in places if "." not in name)
        models = " or ".join(dict.fromkeys(name.split(".")[0] + ".KEY" for name in places if "." in name))
        raise ValueError(
            f"model_args: unknown {', '.join(sorted(unknown))}; decoder={choices['decoder']} takes {names}, "
            f"and {models} for a setting of a model itself"
        )
    for name, value in ({"max_gen_toks": DEFAULT_MAX_GEN_TOKS} | dict(given)).items():
        if places[name] is None:
            continue
        if name == "batch_size" and str(value).isdigit():  # lm-eval's flag is a text
            value = int(value)
        if name == "max_gen_toks":
            at_least_one(max_gen_toks=value, needed=True)
        try:
            OmegaConf.update(cfg, places[name], None if value == "null" else value, merge=False)
        except OmegaConfBaseException as error:
            raise ValueError(f"model_args: {name}={value}: {str(error).splitlines()[0]}") from error
    return typed(cfg)


def _places(cfg: DictConfig) -> dict[str, str | None]:
    """Every name that model_args may have, and its key in the configuration; None for what is composed."""
    _, *others = build_decoder(cfg.decoder).roles
    settings = [key for key in cfg.decoder if key not in ("_target_", "name")]
    return (
        dict.fromkeys(["pretrained", "decoder", *others])
        | {key: f"decoder.{key}" for key in settings}
        | {"max_gen_toks": "task.max_new_tokens"}
        | {key: key for key in SHARED}
        | {f"{group}.{key}": f"{group}.{key}" for group in ("model", *others) for key in cfg[group] or ()}
    )


def _choice(key: str, value: Any) -> str:
    """The choice of the key's group that a value names: by its name, or by the path of its weights.

    Another path is refused: how its authors evaluate a model (end tokens, temperature, schedule) is part of a
    choice, and a guess would change scores without a word.
    """
    group, value = GROUPS[key], str(value)
    found = _choices(group)
    if value in found:
        return value
    wanted = {Path(value).resolve(), (ROOT / value).resolve()}
    for name, config in found.items():
        if config.get("path") and (ROOT / config["path"]).resolve() in wanted:
            return name
    own = (
        "" if key == "decoder" else f"; for other weights {key}=THE CHOICE THEY ARE LIKE,{group}.path={value}"
    )
    raise ValueError(f"model_args: {key}={value}: there are {', '.join(found)}{own}")


def _choices(group: str) -> dict[str, dict]:
    """The files of a group of eval_config by name; an auxiliary or drafter has the path of its model."""
    files = sorted((ROOT / "eval_config" / group).glob("*.yaml"))
    found = {file.stem: yaml.safe_load(file.read_text()) for file in files}
    if group in ("auxiliary", "drafter"):
        models = _choices("model")
        found = {name: {"path": models.get(name, {}).get("path")} | config for name, config in found.items()}
    return found
