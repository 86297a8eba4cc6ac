"""What the commands share: how one starts, refuses bad input and ends, and how a long one shows where it
is."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import ClassVar

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # counts settings as `-m` does
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from unmask.paths import ROOT

TRACEBACKS = bool(os.environ.get("HYDRA_FULL_ERROR"))  # asked for by the user, as of Hydra itself


RESUMES = "interrupted; what was finished is kept, and the same command goes on from there"


@contextmanager
def refusals(interrupted: str = RESUMES) -> Iterator[None]:
    """Whatever is wrong with the input (a ValueError) becomes one message on stderr and exit code 2.

    So does Ctrl-C: `interrupted`, with exit code 130. HYDRA_FULL_ERROR=1 shows the traceback, as it does for
    Hydra's own messages.
    """
    try:
        yield
    except ValueError as error:
        if TRACEBACKS:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)


def door(config_name: str) -> Callable:
    """hydra.main for a command, with `refusals`; settings that cannot be composed exit with 2 as well."""

    def decorate(function: Callable) -> Callable:
        started = False

        def task(cfg):
            nonlocal started
            started = True
            with refusals():
                return function(cfg)

        def main():
            nonlocal started
            started = False
            # Hydra prints a traceback for what it did not foresee, unless it is told to let errors through.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            folder = str(ROOT / "eval_config")
            try:
                hydra.main(version_base=None, config_path=folder, config_name=config_name)(task)()
            except (
                Exception
            ) as error:  # before the start every error is about the settings, whatever its type
                if started or TRACEBACKS:
                    raise
                print(f"error: {_reason(error)}", file=sys.stderr)
                print(f"({sys.argv[0]} --help lists every choice and setting)", file=sys.stderr)
                raise SystemExit(2) from None

        return main

    return decorate


def _reason(error: Exception) -> str:
    """What is wrong with the settings, as far as Hydra and OmegaConf tell."""
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return (
            f"these settings cannot be composed: {' '.join(sys.argv[1:])} ({error or type(error).__name__})"
        )
    cause = error.__cause__
    return f"{error} ({str(cause).splitlines()[0]})" if cause and str(cause) else str(error)


class Sweep(Callback):
    """Hydra calls this; the progress bar asks it. Outside a sweep, and in a launcher's other processes,
    `total` is 0."""

    number: ClassVar[int] = 0  # of the setting at work, from 1
    total: ClassVar[int] = 0

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        overrides = OverridesParser.create().parse_overrides([*params, *config.hydra.overrides.task])
        Sweep.total = len(BasicSweeper.split_arguments(overrides, None)[0])

    def on_job_start(self, config: DictConfig, **kwargs) -> None:
        Sweep.number = config.hydra.job.num + 1 if Sweep.total else 0

    @classmethod
    def describe(cls, decoded: int, documents: int, seconds: float) -> str:
        """What stands left of the bar: `decoded` documents in this process and setting took `seconds`, of
        `documents`."""
        if not cls.total:
            return "decoding"
        place = f"setting {cls.number} of {cls.total}"
        if not decoded:
            return place
        # As if nothing of the later settings were on disk: the most it can take.
        left = documents - decoded + (cls.total - cls.number) * documents
        return f"{place} (all: {timedelta(seconds=round(seconds / decoded * left))})"
