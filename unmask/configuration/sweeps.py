"""The settings of a sweep: what a figure's grid, its arms and a command's own lists expand to.

`python eval.py figure=fig3 seed=0,1` and `python report.py figure=fig3 seed=0,1` name the same settings, so
that a report finds exactly the runs that the evaluation made. The grid of a figure is
`hydra.sweeper.params`, as in any Hydra sweep; an arm is a named list of settings, which `arm` chooses.

Everything here needs an initialised Hydra: a function under `hydra.main`, or `initialize_config_dir`.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # what `-m` runs, by its own rules
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

_lists: list[str] = []  # the command's comma lists, while `lists_allowed`


def expand(given: Sequence[str]) -> list[list[str]]:
    """One list of overrides per setting, as `compose("eval", ...)` takes them, from a command's own
    overrides.

    given: for example ["figure=fig3", "limit=5", "seed=0,1"]. A list of the command replaces the figure's
    list of the same key. Arms are resolved: their settings come last and win.

    Of several figures (figure=fig2,fig3), the settings of one after the other's; two of them may coincide.

    ValueError where an override, a figure or an arm does not exist.
    """
    overrides = _parse(given)
    if len(figures := _figures(overrides)) > 1:
        rest = [o.input_line for o in overrides if o.key_or_group != "figure"]
        return [one for name in figures for one in expand([*rest, f"figure={name}"])]
    params, arms = _figure(overrides)
    own = [o for o in overrides if not o.is_hydra_override()]
    grid = _parse([f"{key}={value}" for key, value in params.items()])
    try:
        (combinations,) = BasicSweeper.split_arguments([*grid, *own], None)
    except HydraException as error:
        raise ValueError(f"{' '.join(given)}: a sweep takes a,b, choice() and range() ({error})") from error
    if arms and not any(o.key_or_group == "arm" for o in [*grid, *own]):
        combinations = [[*one, f"arm={arm}"] for one in combinations for arm in arms]
    return [_with_arm(list(one), arms) for one in combinations]


def resolve(given: Sequence[str]) -> list[str]:
    """The overrides of one setting, with its arm resolved; a figure's grid is not looked at."""
    overrides = _parse(given)
    _, arms = _figure(overrides)
    return _with_arm([o.input_line for o in overrides if not o.is_hydra_override()], arms)


def settings(given: Sequence[str], config_name: str = "eval") -> list[DictConfig]:
    """The composed configuration of every setting; ValueError where one cannot be composed."""
    return [_compose(config_name, overrides) for overrides in expand(given)]


def figures_named(given: Sequence[str]) -> list[str]:
    """The figures that a command names, if any."""
    return _figures(_parse(given))


@contextmanager
def lists_allowed() -> Iterator[None]:
    """Let a command have comma lists (seed=0,1) without `-m`: Hydra refuses them, so it does not see them.

    Inside, `given()` has them again.
    """
    arguments = sys.argv[1:]
    multirun = "-m" in arguments or "--multirun" in arguments
    _lists[:] = [] if multirun else [argument for argument in arguments if _is_list(argument)]
    before = sys.argv
    sys.argv = [before[0], *(argument for argument in arguments if argument not in _lists)]
    try:
        yield
    finally:
        sys.argv = before
        _lists.clear()


def given() -> list[str]:
    """The command's own overrides, its lists (see `lists_allowed`) among them."""
    return [*HydraConfig.get().overrides.task, *_lists]


def _parse(lines: Sequence[str]) -> list[Override]:
    parser, found = OverridesParser.create(), []
    for line in lines:
        try:
            found += parser.parse_overrides([line])
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{line}: is no setting as in key=value ({reason})") from error
    return found


def _is_list(argument: str) -> bool:
    if argument.startswith("-"):
        return False
    try:
        (override,) = OverridesParser.create().parse_overrides([argument])
    except HydraException:
        return False  # Hydra says what is wrong with it
    return override.is_sweep_override()


def _figures(overrides: Sequence[Override]) -> list[str]:
    """["fig2", "fig3"] of figure=fig2,fig3; ValueError where one is no name."""
    found = []
    for o in overrides:
        if o.key_or_group == "figure":
            names = list(o.sweep_iterator()) if o.is_sweep_override() else [o.value()]
            if not all(isinstance(name, str) for name in names):
                raise ValueError(f"{o.input_line}: is no name of a figure")
            found += names
    return found


def _figure(overrides: Sequence[Override]) -> tuple[dict[str, str], dict[str, str]]:
    """(grid, arms) of the figure that a command names, with what the command changes of these."""
    figures = _figures(overrides)
    if len(figures) > 1:
        raise ValueError(f"{', '.join(figures)}: a figure is a sweep of its own; give one here")
    changes = [o.input_line for o in overrides if o.key_or_group.startswith(("arms", "hydra."))]
    params, arms = _sweep(*(f"figure={name}" for name in figures), *changes)
    return dict(params), dict(arms)


@cache
def _sweep(*overrides: str) -> tuple[dict[str, str], dict[str, str]]:
    """(grid, arms) of a composition, which takes a quarter of a second: a figure is asked for many times."""
    cfg = _compose("eval", overrides, with_hydra=True)
    params = cfg.hydra.sweeper.get("params") or {}
    return {key: str(value) for key, value in params.items()}, dict(OmegaConf.select(cfg, "arms") or {})


def _with_arm(overrides: list[str], arms: dict[str, str]) -> list[str]:
    """`arm=NAME` replaced by what the arm says."""
    chosen = [line for line in overrides if line.lstrip("+").startswith("arm=")]
    rest = [line for line in overrides if line not in chosen]
    for line in chosen[-1:]:
        name = line.partition("=")[2]
        if name == "null":
            continue
        if name not in arms:
            choices = ", ".join(arms) or "none, since there are no arms here"
            raise ValueError(f"arm={name}: choose one of {choices}")
        rest += arms[name].split()
    return rest


def _compose(config_name: str, overrides: Sequence[str], with_hydra: bool = False) -> DictConfig:
    try:
        return compose(config_name, list(overrides), return_hydra_config=with_hydra)
    except HydraException as error:
        said = str(error).partition("\nConfig search path")[0]
        cause = f" ({str(error.__cause__).splitlines()[0]})" if str(error.__cause__ or "") else ""
        raise ValueError(f"{' '.join(overrides)}: {said}{cause}") from error
