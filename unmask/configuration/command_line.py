"""What the commands share: how one starts, refuses bad input, ends, and gives a sweep to Hydra's
launchers."""

import os
import select
import shlex
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import ClassVar

import hydra
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from unmask.configuration.composition import CONFIGURATIONS, spelled
from unmask.configuration.sweeps import expand

TRACEBACKS = bool(os.environ.get("HYDRA_FULL_ERROR"))  # asked for by the user, as of Hydra itself
RESUMES = "interrupted; what was finished is kept, and the same command goes on from there"


def command(config_name: str, doc: str, sweeps: bool = False) -> Callable:
    """Makes `function(given)` a command: given are its words (key=value), as `composed` and `expand` take
    them.

    --help tells what doc, the configuration and the chosen decoder say. sweeps: with -m, Hydra launches a job
    for each setting, `function(words, single=True)`. Hydra's other flags (--cfg, --info) do as in Hydra.
    """

    def decorate(function: Callable[..., None]) -> Callable[[], None]:
        def main() -> None:
            import unmask.quiet  # noqa: F401

            given = sys.argv[1:]
            flags = [word for word in given if word.startswith("-")]
            words = [word for word in given if word not in flags]
            with refusals():
                if {"--help", "-h"} & set(flags):
                    from unmask.configuration.help import help_text

                    print(help_text(config_name, doc, words))
                elif {"--multirun", "-m"} & set(flags):
                    if not sweeps:
                        raise ValueError("-m: sweeps are of eval.py alone")
                    from unmask.configuration.settings import check_effects

                    check_effects(config_name, [word for word in words if "hydra/" not in word])
                    _launch(config_name, function, flags, words)
                elif flags:
                    sys.argv[1:] = [*flags, *spelled(words)]
                    _hydra(config_name, lambda cfg: function(words))
                else:
                    function(words)

        return main

    return decorate


@contextmanager
def refusals(interrupted: str = RESUMES) -> Iterator[None]:
    """Whatever is wrong with the input (a ValueError) becomes one message on stderr and exit code 2.

    What the system refuses (an OSError: a full disk, a folder that may not be written; memory) becomes one
    with exit code 1. A reader that closed its pipe (`| head`) ends the command with code 1 and no message.
    Ctrl-C becomes `interrupted`, with exit code 130. HYDRA_FULL_ERROR=1 shows the traceback, as it does for
    Hydra's own messages.
    """
    try:
        yield
        if sys.stdout:
            sys.stdout.flush()  # a closed pipe shows here, not at the end of the interpreter
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _silenced():
            sys.exit(1)
        if TRACEBACKS:
            raise
        named = error.filename is not None and error.strerror
        print(f"error: {error.filename}: {error.strerror}" if named else f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except ValueError as error:
        if TRACEBACKS:
            raise
        print(f"error: {error}", file=sys.stderr)
        print(f"({os.path.basename(sys.argv[0])} --help lists every choice and setting)", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if TRACEBACKS or not _is_of_memory(error):
            raise
        why = (str(error).splitlines() or ["no more is known"])[0]
        print(
            f"error: out of memory ({why}): try batch_size=1, a smaller model or interleave=false; "
            "what was finished is kept",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)


def _is_of_memory(error: Exception) -> bool:
    """Whether memory was refused: by Python, by a GPU's allocator or by torch's of a CPU."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)


def _silenced() -> bool:
    """Whether a standard stream's reader is gone; such a stream then goes nowhere, so that the interpreter's
    last flush does not fail."""
    found = False
    for number in (1, 2):
        poll = select.poll()
        poll.register(number, 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            found = True
    return found


def _launch(config_name: str, function: Callable, flags: list[str], words: list[str]) -> None:
    """A job of Hydra's launcher for each setting, which it gets as one word."""
    own = [word for word in words if word.lstrip("+~").startswith("hydra")]
    settings = [shlex.join(one) for one in expand([word for word in words if word not in own])]
    quoted = ["'" + setting.replace("\\", "\\\\").replace("'", "\\'") + "'" for setting in settings]
    Sweep.total = len(settings)
    sys.argv[1:] = [*flags, *own, f"setting={','.join(quoted)}"]
    try:
        _hydra(config_name, lambda cfg: function(shlex.split(cfg.setting), single=True))
    except BrokenExecutor as error:
        raise ChildProcessError(
            "a worker process of the launcher died (killed, or out of memory: fewer workers need less). "
            "What was finished is kept, and the same command goes on from there"
        ) from error
    finally:
        Sweep.number = Sweep.total = 0


def _hydra(config_name: str, task: Callable[[DictConfig], None]) -> None:
    """hydra.main, for what Hydra does by itself; what its jobs refuse is told in their own process."""

    def job(cfg: DictConfig) -> None:
        import unmask.quiet  # noqa: F401

        with refusals():
            task(cfg)

    # Hydra prints a traceback for what it did not foresee, unless it is told to let errors through.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base=None, config_path=str(CONFIGURATIONS), config_name=config_name)(job)()
    except HydraException as error:
        raise ValueError(str(error).splitlines()[0]) from error


class Sweep(Callback):
    """Hydra calls this; the progress bar asks it. Outside a sweep, and in a launcher's other processes,
    `total` is 0."""

    number: ClassVar[int] = 0  # of the setting at work, from 1
    total: ClassVar[int] = 0

    def on_job_start(self, config: DictConfig, **kwargs) -> None:
        Sweep.number = config.hydra.job.num + 1 if Sweep.total else 0

    @classmethod
    def describe(cls, decoded: int, documents: int, seconds: float) -> str:
        """What stands left of the bar: `decoded` documents in this process and setting took `seconds`, of
        `documents`."""
        if not cls.total:
            return "decoding"
        number = f"setting {cls.number} of {cls.total}"
        if not decoded:
            return number
        # As if nothing of the later settings were on disk: the most it can take.
        left = documents - decoded + (cls.total - cls.number) * documents
        return f"{number} (all: {timedelta(seconds=round(seconds / decoded * left))})"
