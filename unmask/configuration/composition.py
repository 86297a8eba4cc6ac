"""From the words of a command to a configuration, with Hydra. Whatever is wrong is a ValueError.

This file imports no torch, so that `--help` answers at once.
"""

import pickle
import re
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache, lru_cache

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from unmask.configuration import schema  # noqa: F401  (registers what configurations are made of)
from unmask.paths import CONFIGURATIONS

SPELLED = ("auxiliary", "drafter")  # roles that every configuration has a default for


def _canvas(name: str) -> int:
    """${canvas:TASK}: tokens of the longest right answer of a task of ParallelBench."""
    from unmask.tasks.parallelbench import canvas  # lm-eval is behind it

    return canvas(name)


OmegaConf.register_new_resolver("canvas", _canvas, replace=True)


def composed(config_name: str, words: Sequence[str]) -> DictConfig:
    """The configuration that a command composes from its words; ValueError where there is none.

    Choices of groups are composed by Hydra, once for equal ones; plain values are set on a copy.
    """
    if config_name == "train":
        from unmask.training import recipe  # noqa: F401  (registers what a recipe is made of)
    overrides = [parsed(word) for word in (words if config_name == "train" else spelled(words))]
    values = [o for o in overrides if _is_value(o)]
    choices = [o.input_line for o in overrides if not _is_value(o)]
    try:
        cfg = pickle.loads(_composed(config_name, tuple(choices)))
        for override in values:
            key, value = override.key_or_group, override.value()
            if isinstance(OmegaConf.select(cfg, key), bool) and type(value) in (int, float):
                raise ValueError(f"{key} must be true or false")  # OmegaConf takes 7 for true
            OmegaConf.update(cfg, key, value, merge=True)
    except Exception as error:  # Hydra lets through whatever a strange setting makes it stumble over
        raise ValueError(f"{' '.join(words)}: {_reason(error)}") from error
    return cfg


@cache
def _composed(config_name: str, choices: tuple[str, ...]) -> bytes:
    """Pickled: that is copied in a tenth of the time of `copy.deepcopy`."""
    ready = GlobalHydra.instance().is_initialized()  # as in a job of a sweep
    with nullcontext() if ready else initialize_config_dir(str(CONFIGURATIONS), version_base=None):
        return pickle.dumps(compose(config_name, list(choices)))


@lru_cache(maxsize=10_000)  # the words of a sweep come again in each of its settings
def parsed(word: str) -> Override:
    """A word of a command as Hydra reads it; ValueError where it is no setting."""
    try:
        return OverridesParser.create().parse_overrides([word])[0]
    except HydraException as error:
        raise ValueError(f"{word}: is no setting as in key=value ({_reason(error)})") from error


def _is_value(override: Override) -> bool:
    """Whether it sets a key that is there, and chooses no file of a group."""
    key = override.key_or_group
    plain = not (
        override.is_add() or override.is_force_add() or override.is_delete() or override.is_sweep_override()
    )
    own = re.fullmatch(r"\w+(\.\w+)*", key) is not None and not key.startswith("hydra.")
    return plain and own and not (CONFIGURATIONS / key).is_dir()


def spelled(words: Sequence[str]) -> list[str]:
    """The words with the models of further roles as Hydra composes them.

    drafter=tiny_qwen chooses the file model/tiny_qwen.yaml for the role `drafter`, drafter.path=FOLDER sets
    a key of it; so for any role that a decoder names. ROLE=none takes a default away.
    """
    return [_spelled(word, _top_level_keys()) for word in words]


def _spelled(word: str, known: frozenset[str]) -> str:
    key, equals, value = word.partition("=")
    role, dot, rest = key.partition(".")
    if not equals or not role.isidentifier() or role in known:
        return word
    if dot:
        return f"models.{role}.{rest}={value}"
    if role in SPELLED:
        return f"model@models.{role}={value}"
    is_model = re.fullmatch(r"[\w.-]+", value) and (CONFIGURATIONS / "model" / f"{value}.yaml").is_file()
    return f"+model@models.{role}={value}" if is_model else word


@cache
def _top_level_keys() -> frozenset[str]:
    """What a command's words may begin with: keys of its configuration, groups, and Hydra's own."""
    keys = {key for name in ("eval", "report", "bench", "demo") for key in composed(name, ())}
    groups = {path.name for path in CONFIGURATIONS.iterdir() if path.is_dir()}
    return frozenset(keys | groups | {"hydra"})


def _reason(error: Exception) -> str:
    """What is wrong, as far as Hydra and OmegaConf tell, in one line."""
    said = str(error).partition("\nConfig search path")[0].strip() or type(error).__name__
    said = "; ".join(line.strip() for line in said.splitlines() if not line.startswith("    "))
    cause = str(error.__cause__ or "").splitlines()
    return f"{said} ({cause[0]})" if cause and cause[0] not in said else said
