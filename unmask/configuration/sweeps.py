"""The settings of a sweep: what a figure's arms and grid, and a command's own lists, expand to.

`python eval.py figure=fig3 seed=0,1` and `python report.py figure=fig3 seed=0,1` name the same settings, so
that a report finds exactly the runs that the evaluation made. A figure (eval_config/figure/NAME.yaml) has

    arms:                        # named settings; a list is swept
      one: {decoder: leftright}
      apd: {decoder: apd, decoder.mixture_weight: [0.0, 0.1, 0.5]}
      wino: {decoder: wino, decoder.temperature: []}  # an empty list takes a key of the grid away
    grid:                        # swept for every arm
      task: [gsm_symbolic, chain_sum]
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from unmask.configuration.composition import composed, parsed

STRUCTURE = (
    "figure",
    "bench",
    "arms",
    "arm",
    "grid",
    "draw",
    "hydra",
)  # keys that say which settings there are
Choices = dict[str, list[str]]  # key -> its values, in the words of the command line


def expand(given: Sequence[str]) -> list[list[str]]:
    """One list of words per setting, as `composed` takes them, from a command's own words.

    given: for example ["figure=fig3", "limit=5", "seed=0,1"]. What the command gives for a key that an arm
    or the grid sweeps replaces their list; arms without that key do not get it, and values of
    another arm's list are that arm's alone. What an arm says once wins over the command.

    Of several figures (figure=fig2,fig3), the settings of one after the other's; two of them may coincide.

    ValueError where a word, a figure or an arm does not exist.
    """
    return [words for _, words in _expand(given)]


def _expand(given: Sequence[str]) -> list[tuple[str | None, list[str]]]:
    """`expand`, each setting with the arm that it is of."""
    words = [parsed(word) for word in given]
    figures = _names(words, "figure")
    if len(figures) > 1:
        rest = [o.input_line for o in words if o.key_or_group != "figure"]
        return [one for name in figures for one in _expand([*rest, f"figure={name}"])]
    changes = [  # and where the figure may lie
        o.input_line
        for o in words
        if o.key_or_group.partition(".")[0] in ("arms", "grid") or o.key_or_group == "hydra.searchpath"
    ]
    arms, grid = _figure(*(f"figure={name}" for name in figures), *changes)
    own = {o.input_line.partition("=")[0]: _values(o) for o in words if o.key_or_group != "arm"}
    found = []

    def theirs(key: str) -> set[str]:
        """The values that any arm sweeps."""
        return {value for arm in arms.values() if len(arm.get(key, ())) > 1 for value in arm[key]}

    for arm in _chosen(_names(words, "arm"), arms):
        mine = arms.get(arm, {})
        swept = {key for other in arms.values() for key, values in other.items() if len(values) > 1}
        command = {
            key: [v for v in values if v in mine.get(key, ()) or v not in theirs(key)]
            for key, values in own.items()
            if key in mine or key not in swept
        }
        fixed = {key: values for key, values in mine.items() if len(values) == 1}
        every = grid | mine | command | fixed
        without = {key for key, values in mine.items() if not values}
        found += [(arm, words) for words in product({k: v for k, v in every.items() if k not in without})]
    return found


def settings(given: Sequence[str], config_name: str = "eval") -> list[DictConfig]:
    """The composed configuration of every setting, `arm` being its own; ValueError where one cannot be
    composed."""
    found = [(arm, composed(config_name, words)) for arm, words in _expand(given)]
    for arm, cfg in found:
        cfg.arm = arm
    return [cfg for _, cfg in found]


def arm_choices(arm: Any) -> Choices:
    """An arm's settings: a mapping, or on the command line a text as in arms='{a: "seed=1 limit=2"}'."""
    if isinstance(arm, str):
        return {o.input_line.partition("=")[0]: _values(o) for o in map(parsed, arm.split())}
    if not isinstance(arm, Mapping):
        raise ValueError(f"arms: {arm!r} must be settings, as in {{decoder: apd, seed: [0, 1]}}")
    lists = {str(key): value if isinstance(value, list) else [value] for key, value in arm.items()}
    return {key: [as_word(value) for value in values] for key, values in lists.items()}


def as_word(value: Any) -> str:
    """A value of a YAML file as it is written on the command line."""
    if isinstance(value, str):
        return value if re.fullmatch(r"[\w./:@-]+", value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | dict):
        inner = [
            as_word(v) if isinstance(value, list) else f"{k}:{as_word(v)}"
            for k, v in (value.items() if isinstance(value, dict) else enumerate(value))
        ]
        return ("[{}]" if isinstance(value, list) else "{{{}}}").format(",".join(inner))
    return json.dumps(value)


def figures_named(given: Sequence[str]) -> list[str]:
    """The figures that a command names, if any."""
    return _names([parsed(word) for word in given], "figure")


def is_list(word: str) -> bool:
    """Whether a word sweeps its key: seed=0,1."""
    return not word.startswith("-") and parsed(word).is_sweep_override()


def of_arms(word: str) -> bool:
    """Whether a word says which arms there are, or takes some of them."""
    return key_of(word).partition(".")[0] in ("arm", "arms", "grid")


def key_of(word: str) -> str:
    """The key of a word of a command."""
    return word.partition("=")[0].lstrip("+~")


def _chosen(named: list[str], arms: Mapping[str, Choices]) -> list[str | None]:
    """The arms that a command names; all where it names none."""
    named = [name for name in named if name != "null"]
    for name in named:
        if name not in arms:
            choices = f"choose of {', '.join(arms)}" if arms else "this configuration defines no arms"
            raise ValueError(f"arm={name}: {choices}")
    return named or list(arms) or [None]


def product(choices: Choices) -> list[list[str]]:
    """Every combination, as words of a command; the first key varies slowest."""
    keys = list(choices)
    return [
        [f"{key}={value}" if value is not None else key for key, value in zip(keys, values, strict=True)]
        for values in itertools.product(*choices.values())
    ]


def _values(override: Override) -> list[str | None]:
    """All values of a word, as they are written; [None] of one without a value (~key)."""
    if not override.is_sweep_override():
        _, equals, value = override.input_line.partition("=")
        return [value if equals else None]
    try:
        found = list(override.sweep_string_iterator())
    except HydraException as error:
        raise ValueError(
            f"{override.input_line}: a sweep takes a,b, choice() and range() ({error})"
        ) from error
    if not found:
        raise ValueError(f"{override.input_line}: sweeps no value")
    return found


def _names(words: Sequence[Override], key: str) -> list[str]:
    """["fig2", "fig3"] of figure=fig2,fig3; ValueError where one is no name."""
    found = [name for o in words if o.key_or_group == key for name in _values(o)]
    for name in found:
        if not re.fullmatch(r"\w+", str(name)):
            raise ValueError(f"{key}={name}: is no name")
    return found


@cache
def _figure(*words: str) -> tuple[dict[str, Choices], Choices]:
    """(arms, grid) of the figure that a command names, with what the command changes of these."""
    cfg = composed("eval", words)
    arms, grid = (OmegaConf.to_container(cfg[key]) for key in ("arms", "grid"))
    return {str(name): arm_choices(arm) for name, arm in arms.items()}, arm_choices(grid)
