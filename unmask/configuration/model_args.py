"""lm-eval's `--model_args` as the configuration that eval.py composes, so that nothing is checked twice.

pretrained=checkpoints/tiny_dream,decoder=apd,auxiliary=checkpoints/tiny_qwen,mixture_weight=0.1

pretrained           model of the decoder's first role: a choice of eval_config/model, or the path of one
auxiliary, drafter   model of the decoder's other role, whatever it is called: in the same way
decoder              a choice of eval_config/decoder; each of its settings by its own name
max_gen_toks         new tokens at most, where a task does not say; 256 as everywhere in lm-eval
device, dtype, seed, batch_size, threads, compile, force,
mc_samples, mc_batch, check_greedy, results                 as of eval.py
model.KEY, ROLE.KEY                                         any setting of a model, as of eval.py
"""

import copy
from collections.abc import Mapping
from typing import Any

import yaml
from lm_eval.defaults import DEFAULT_MAX_GEN_TOKS
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unmask.configuration.composition import CONFIGURATIONS, SPELLED, composed
from unmask.configuration.schema import EvalConfig
from unmask.configuration.settings import build_decoder, has_effect, typed
from unmask.decoding.sampling import at_least_one
from unmask.paths import lookups

SHARED = (  # as eval.py calls them
    *("device", "dtype", "seed", "batch_size", "threads", "compile", "force", "results"),
    *("mc_samples", "mc_batch", "check_greedy"),
)


def configuration(given: Mapping[str, Any]) -> EvalConfig:
    """The configuration of these model_args; its task tells nothing but max_new_tokens.

    ValueError names what is wrong, and for an unknown name all that there are.
    """
    for key, group in (("pretrained", "model"), ("decoder", "decoder")):
        if key not in given:
            raise ValueError(f"model_args: {key}= is missing; there are {', '.join(_choices(group))}")
    decoder = _choice("decoder", "decoder", given["decoder"])
    words = [f"model={_choice('pretrained', 'model', given['pretrained'])}", f"decoder={decoder}"]
    _, *others = build_decoder(composed("eval", words).decoder).roles
    models = {role: "none" for role in SPELLED}
    models |= {role: _choice(role, "model", given[role]) for role in others if role in given}
    cfg = composed("eval", [*words, *(f"{role}={model}" for role, model in models.items())])
    keys = _keys(cfg, others)
    if unknown := given.keys() - keys.keys():
        names = ", ".join(name for name in keys if "." not in name)
        of_models = " or ".join(f"{role}.KEY" for role in ("model", *others))
        raise ValueError(
            f"model_args: unknown {', '.join(sorted(unknown))}; decoder={decoder} takes {names}, "
            f"and {of_models} for a setting of a model itself"
        )
    values = {"max_gen_toks": DEFAULT_MAX_GEN_TOKS} | dict(given)
    found = _with(cfg, keys, values)
    for name in given:
        lacking = _with(cfg, keys, {key: value for key, value in values.items() if key != name})
        if not has_effect("harness", found, lacking):
            raise ValueError(f"model_args: {name}={given[name]}: has no effect with these, remove it")
    return typed(found)


def _with(cfg: DictConfig, keys: Mapping[str, str | None], values: Mapping[str, Any]) -> DictConfig:
    """A copy with these values."""
    cfg = copy.deepcopy(cfg)
    for name, value in values.items():
        if keys[name] is None:
            continue
        if name == "batch_size" and str(value).isdigit():  # lm-eval's flag is a text
            value = int(value)
        if name == "max_gen_toks":
            at_least_one(max_gen_toks=value, needed=True)
        try:
            OmegaConf.update(cfg, keys[name], None if value == "null" else value, merge=False)
        except OmegaConfBaseException as error:
            raise ValueError(f"model_args: {name}={value}: {str(error).splitlines()[0]}") from error
    return cfg


def _keys(cfg: DictConfig, others: list[str]) -> dict[str, str | None]:
    """Every name that model_args may have, and its key in the configuration; None for what is composed."""
    settings = [key for key in cfg.decoder if key not in ("_target_", "name")]
    models = {"model": "model"} | {role: f"models.{role}" for role in others}
    return (
        dict.fromkeys(["pretrained", "decoder", *others])
        | {key: f"decoder.{key}" for key in settings}
        | {"max_gen_toks": "task.max_new_tokens"}
        | {key: key for key in SHARED}
        | {
            f"{role}.{key}": f"{where}.{key}"
            for role, where in models.items()
            for key in OmegaConf.select(cfg, where) or ()
        }
    )


def _choice(key: str, group: str, value: Any) -> str:
    """The choice of a group that a value names: by its name, or by the path of its weights.

    Another path is refused: how its authors evaluate a model (end tokens, temperature, schedule) is part of a
    choice, and a guess would change scores without a word.
    """
    value = str(value)
    found = _choices(group)
    if value in found:
        return value
    wanted = {folder.resolve() for folder in lookups(value)}
    for name, config in found.items():
        if config.get("path") and wanted & {folder.resolve() for folder in lookups(config["path"])}:
            return name
    own = "" if key == "decoder" else f"; for other weights {key}=THE CHOICE THEY ARE LIKE,{key}.path={value}"
    own = own.replace("pretrained.path", "model.path")
    raise ValueError(f"model_args: {key}={value}: there are {', '.join(found)}{own}")


def _choices(group: str) -> dict[str, dict]:
    """The files of a group of eval_config by name."""
    files = sorted((CONFIGURATIONS / group).glob("*.yaml"))
    return {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}
