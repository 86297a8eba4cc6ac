"""Runs by their settings: which runs of a collection are those of a figure, or of a command of eval.py."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from unmask.configuration.composition import composed
from unmask.configuration.settings import identity_of, typed
from unmask.configuration.sweeps import key_of, settings
from unmask.models.loading import Source
from unmask.models.resources import ACCELERATORS, choose_device
from unmask.paths import CONFIGURATIONS, ROOT, lookups, may_be_file, may_be_folder
from unmask.records import Run
from unmask.records.archive import overrides_of
from unmask.records.collection import Collection, Setting, collect
from unmask.records.reading import RUN
from unmask.report.comparison import Scored
from unmask.report.definition import Definition, define

FIGURES = sorted(path.stem for path in (CONFIGURATIONS / "figure").glob("*.yaml"))
REFERENCE = ROOT / "results" / "reference"
OWN = (
    "figure",
    "results",
    "published",
    "pictures",
    "changed",
    "document",
    "page",
)  # settings that choose no run
OF_A_FOLDER = ("limit", "task.limit", "task.metric")  # settings that choose of a run
A_RUN = "a run's folder, or in quotes the settings of eval.py that made it"


def own_settings(given: Sequence[str]) -> DictConfig:
    """What a command says of the report itself: where runs lie and pictures go."""
    cfg = composed("report", [word for word in given if key_of(word) in OWN and key_of(word) != "figure"])
    if cfg.changed is not None and cfg.changed < 0:
        raise ValueError(f"changed={cfg.changed}: must be 0 or more, or null for all")
    return cfg


def results_of(cfg: DictConfig) -> Path:
    """The folder of runs; ValueError where there is none."""
    results = ROOT / cfg.results
    if not _is_there(results):
        raise ValueError(f"results={cfg.results[:100]}: no such folder; run something first (python eval.py)")
    return results


def _is_there(results: Path) -> bool:
    return (may_be_folder(results) or may_be_file(results)) and results.exists()


def archived_settings(results: Path, given: Sequence[str]) -> list[str]:
    """What the archives of a collection add to a command, where it does not say otherwise itself."""
    said = {key_of(word) for word in given}
    return [word for word in overrides_of(results) if key_of(word) not in said]


def runs_of(name: str, given: Sequence[str], runs: list[Run]) -> tuple[Collection, Definition]:
    """(the runs of a figure's sweep, its definition)."""
    configs = settings([*given, f"figure={name}"], "report")
    definition = define(name, OmegaConf.to_container(configs[0]).get("draw"))
    return runs_with(configs, runs, not names_threads(given)), definition


def runs_with(configs: list[DictConfig], runs: list[Run], any_threads: bool = True) -> Collection:
    """The runs of these settings.

    device=auto means the device that made the runs: this machine's kind, or else another. any_threads: where
    runs of the settings' own number of threads are fewer, those of any number.
    """
    here = choose_device("auto").type
    others = [kind for kind in ("cpu", *ACCELERATORS) if kind != here]
    elsewhere = others * any(cfg.device == "auto" for cfg in configs)
    weights, best = weights_of(configs), None
    for device in (here, *elsewhere):
        identities = [identity_on(cfg, device) for cfg in configs]
        for open_too in ({}, {"threads": "auto"})[: 1 + (any_threads and device == "cpu")]:
            wanted = [
                Setting(
                    identity | open_too,
                    cfg.task.metric,
                    cfg.limit,
                    cfg.task.subset_seed,
                    cfg.task.documents,
                    cfg.arm,
                )
                for identity, cfg in zip(identities, configs, strict=True)
            ]
            found = collect(runs, wanted, weights)
            if best is None or len(found.rows) > len(best.rows):
                best = found
            if not best.missing:
                return best
        if not best.rows.empty:
            break
    return best


def identity_on(cfg: DictConfig, device: str) -> dict:
    """The identity of a setting. device: the kind that is meant, where cfg says auto."""
    return identity_of(OmegaConf.merge(cfg, {"device": device}) if cfg.device == "auto" else cfg)


def weights_of(configs: list[DictConfig]) -> Callable[[dict], str | None]:
    """A lookup for `collect`: fingerprints of the models that lie on this machine, read when asked for."""
    models = {}
    for cfg in map(typed, configs):
        for model in (cfg.model, *cfg.models.values()):
            if any(folder.is_dir() for folder in lookups(model.path)):
                models[model.name] = model
    known = {}

    def lookup(model: dict) -> str | None:
        name = model["name"]
        if name in models and name not in known:
            known[name] = Source(models[name]).fingerprint
        return known.get(name)

    return lookup


def named_run(word: str, results: Path, read: Callable) -> Run | None:
    """The run that a word names by its folder, or by its name in a collection; None where it names settings,
    ValueError where neither."""
    for folder in (Path(word), ROOT / word, results / word):
        if os.path.isfile(folder / RUN):
            return Run.read(folder)
    if "=" not in word and _is_there(results):
        for run in read(results)[0]:
            if run.folder.name == word:
                return run
    if "=" not in word:
        raise ValueError(f"{word}: no run there, nor in results={results}; give {A_RUN}")
    return None


def scored_run(run: Run, given: Sequence[str]) -> Scored:
    """A run and its scored documents: all, or those that a limit takes."""
    cfg = composed("report", given)
    said = {key_of(word) for word in given}
    metric = cfg.task.metric if "task.metric" in said else run.info.get("metric")
    if not said & {"limit", "task.limit"}:
        return run, run.scored(metric)
    drawn = Setting(run.config, metric, cfg.limit, cfg.task.subset_seed, cfg.task.documents)
    return the_run(collect([run], [drawn]), [run])


def run_of_settings(word: str, given: Sequence[str], read: Callable) -> Scored:
    """The run that eval.py made with these settings, and the documents that their limit takes."""
    words = [*given, *word.split()]
    results = results_of(own_settings(words))
    words = [*archived_settings(results, words), *words]
    configs = settings(words, "report")
    if len(configs) > 1:
        raise ValueError(f"{word}: {len(configs)} settings; compare takes one on each side")
    runs, problems = read(results)
    try:
        return the_run(runs_with(configs, runs, not names_threads(words)), runs)
    except ValueError as error:  # it may be one of those that cannot be read
        raise ValueError("; ".join([str(error), *problems])) from error


def the_run(found: Collection, runs: list[Run]) -> Scored:
    """The only run of a collection, and its scored documents; ValueError where it is missing."""
    for label, why in found.missing:
        raise ValueError(f"{label}: {why}")
    ((name, scored),) = found.scored.items()
    return next(run for run in runs if run.folder.name == name), scored


def names_threads(given: Sequence[str]) -> bool:
    """Whether a command says which threads its runs have."""
    return "threads" in map(key_of, given)
