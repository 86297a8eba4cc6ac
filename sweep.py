"""A sweep (eval.py -m): which of its settings is at work, and when all will be done."""

from datetime import timedelta
from typing import ClassVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Sweep(Callback):
    """Hydra calls this; the progress bar asks it. Outside a sweep, and in a launcher's other processes, `total` is 0."""

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
        """What stands left of the bar: `decoded` documents in this process and setting took `seconds`, of `documents`."""
        if not cls.total:
            return "decoding"
        place = f"setting {cls.number} of {cls.total}"
        if not decoded:
            return place
        # As if nothing of the later settings were on disk: the most it can take.
        left = documents - decoded + (cls.total - cls.number) * documents
        return f"{place} (all: {timedelta(seconds=round(seconds / decoded * left))})"
