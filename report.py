"""Figures and tables from records:  python report.py figure=fig3

    python report.py                                        # every figure that results/ has runs of
    python report.py figure=tab1 results=results/reference  # one figure of another collection
    python report.py figure=fig3 limit=50 seed=1            # the runs of eval.py with the same settings
    python report.py compare RUN_A RUN_B                    # two runs against each other, by document
    python report.py compare decoder=leftright "decoder=apd decoder.mixture_weight=0.5"
    python report.py page=true                              # all finished runs in a page for the browser

A figure is its sweep: the settings are those of `eval.py figure=NAME` with the same overrides, and exactly
their runs are read (where the command names no threads, of any number); what is missing is named. For every
figure: PNG, SVG and the CSV behind it, for tables Markdown and LaTeX, in <results>/figures/ (of
results/reference: in figures/). Runs no model. Published points stand in panels of their own, with their
hardware, and are never joined with ours.

`compare A B` prints and writes nothing. Each side is a run's folder (inside results= its name is enough), or
in quotes the settings of eval.py that made it.
"""

import unmask  # noqa: F401, I001  (first: it quiets the libraries below)

import json
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from unmask.configuration import sweeps
from unmask.configuration.command_line import door
from unmask.paths import ROOT
from unmask.models.loading import Source
from unmask.models.resources import choose_device
from unmask.report.board import table_of
from unmask.report.comparison import Scored, show
from unmask.report.definition import Definition, define
from unmask.report.figures import draw, drawable, with_areas
from unmask.report.fronts import aups
from unmask.records import Run, find_runs
from unmask.records.collection import Collection, Setting, collect
from unmask.records.files import RecordError
from unmask.records.reading import RUN
from unmask.configuration.composition import recipe, typed

FIGURES = sorted(path.stem for path in (ROOT / "eval_config" / "figure").glob("*.yaml"))
REFERENCE = ROOT / "results" / "reference"
OWN = ("figure", "results", "published", "pictures", "changed", "page")  # settings that choose no run
OF_A_FOLDER = ("limit", "task.limit", "task.metric")  # settings that choose of a run
A_RUN = "a run's folder, or in quotes the settings of eval.py that made it"


def main() -> None:
    if sys.argv[1:2] == ["compare"]:
        compare_door(sys.argv[2:])
    else:
        with sweeps.lists_allowed():
            report()


@door("report")
def report(cfg: DictConfig) -> None:
    given = sweeps.given()
    results = results_of(cfg)
    if cfg.page:
        return page(cfg, given, results)
    wanted = sweeps.figures_named(given)
    given = [line for line in given if not line.startswith("figure=")]
    (runs, problems), drawn, refused = find_runs(results), {}, []
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    for name in wanted or FIGURES:
        try:
            found, definition = runs_of(name, given, runs)
            if found.missing and not drawable(definition, found):
                print(none_of(name, found, cfg.results), file=sys.stderr)
                continue
            for label, why in found.missing:
                print(f"{name}: missing {label}: {why}", file=sys.stderr)
            picture = draw(definition, found, pictures(cfg, given), cfg.published)
        except ValueError as error:
            if wanted:
                raise
            print(f"{name}: {error}", file=sys.stderr)
            refused.append(name)
            continue
        drawn[name] = os.path.relpath(picture)
        print(f"{name}: {drawn[name]} ({len(found.rows)} of {len(found.rows) + len(found.missing)} runs)")
    if refused:
        raise ValueError(f"{', '.join(refused)}: not drawn, for the reasons above")
    if not drawn:
        raise ValueError(
            f"{cfg.results}: has no runs of {', '.join(wanted) or 'any figure'} with these settings"
        )
    print(json.dumps(drawn))


def results_of(cfg: DictConfig) -> Path:
    """The folder of runs; ValueError where there is none."""
    results = ROOT / cfg.results
    if not results.is_dir():
        raise ValueError(f"results={cfg.results}: no such folder; run something first (python eval.py)")
    return results


def page(cfg: DictConfig, given: list[str], results: Path) -> None:
    """Write the page; it shows all finished runs, so that settings which choose runs are refused."""
    if chosen := [line for line in given if line.startswith("figure=") or key_of(line) not in OWN]:
        raise ValueError(f"page=true shows every finished run of results: leave out {' '.join(chosen)}")
    from unmask.page.build import write  # its libraries are for the page alone

    read = cache(find_runs)  # the board's best settings are of the same runs
    extra = best_settings(read(results)[0])
    file, count, left_out = write(results, pictures(cfg, given) / "page", extra, read)
    for why in left_out:
        print(f"left out: {why}", file=sys.stderr)
    print(f"page: {os.path.relpath(file)} ({count} runs, {file.stat().st_size / 1e6:.1f} MB)")
    print(json.dumps({"page": os.path.relpath(file)}))


def best_settings(runs: list[Run]) -> list:
    """The board's table as a section of the page, where all its runs are there."""
    from unmask.page.tables import Section

    if len(runs) < len(sweeps.expand(["figure=board"])):  # composing all these settings takes half a minute
        return []
    try:
        found, definition = runs_of("board", [], runs)
    except RecordError:  # a setting has two runs, of other weights or prompts: the page may show both
        return []
    if found.missing:
        return []
    note = "Of each method the setting of most tokens a step that loses no more, against one token a step."
    found = with_areas(found, aups(found.rows, found.scored, *definition.first_points))
    return [Section("Best settings", table_of(definition, found), note)]


def none_of(name: str, found: Collection, results: str) -> str:
    """Why there is nothing to draw."""
    reasons = "; ".join(f"{label}: {why}" for label, why in found.missing[:2])
    total = len(found.rows) + len(found.missing)
    return (
        f"{name}: {results} has {len(found.rows) or 'none'} of its {total} runs, too few to draw "
        f"({reasons}); scripts/figure.sh {name} makes them"
    )


def pictures(cfg: DictConfig, given: list[str]) -> Path:
    """Where figures go: beside their runs. figures/ is of the reference run, as it is, alone."""
    if cfg.pictures:
        return ROOT / cfg.pictures
    results = (ROOT / cfg.results).resolve()
    changed = [line for line in given if key_of(line) not in OWN]
    return ROOT / "figures" if results == REFERENCE.resolve() and not changed else results / "figures"


def runs_of(name: str, given: list[str], runs: list[Run]) -> tuple[Collection, Definition]:
    """(the runs of a figure's sweep, its definition)."""
    configs = sweeps.settings([*given, f"figure={name}"], "report")
    first = OmegaConf.to_container(configs[0])
    definition = define(name, first.get("draw"))
    return runs_with(configs, runs, not names_threads(given)), definition


def runs_with(configs: list[DictConfig], runs: list[Run], any_threads: bool = True) -> Collection:
    """The runs of these settings.

    device=auto means the device that made the runs: this machine's kind, or else the other. any_threads:
    where runs of the settings' own number of threads are fewer, those of any number.
    """
    here = choose_device("auto").type
    elsewhere = ["cpu" if here == "cuda" else "cuda"] * any(cfg.device == "auto" for cfg in configs)
    weights, best = weights_of(configs), None
    for device in (here, *elsewhere):
        recipes = [recipe_on(cfg, device) for cfg in configs]
        for open_too in ({}, {"threads": "auto"})[: 1 + (any_threads and device == "cpu")]:
            settings = [
                Setting(recipe | open_too, cfg.task.metric, cfg.limit)
                for recipe, cfg in zip(recipes, configs, strict=True)
            ]
            found = collect(runs, settings, weights)
            if best is None or len(found.rows) > len(best.rows):
                best = found
            if not best.missing:
                return best
        if not best.rows.empty:
            break
    return best


def recipe_on(cfg: DictConfig, device: str) -> dict:
    """The identity of a setting, whatever device this machine has. device: cpu | cuda, where cfg says
    auto."""
    if cfg.device != "auto":
        device = cfg.device.partition(":")[0]
        if device not in ("cpu", "cuda"):
            raise ValueError(f"device={cfg.device}: must be auto, cpu or cuda")
    found = recipe(OmegaConf.merge(cfg, {"device": "cpu"}))
    if device == "cuda":
        dtype = "bfloat16" if cfg.dtype == "auto" else found["dtype"]
        found |= {"device": device, "dtype": dtype, "threads": None}
    return found


def weights_of(configs: list[DictConfig]):
    """A lookup for `collect`: fingerprints of the models that lie on this machine, read when asked for."""
    models = {}
    for cfg in map(typed, configs):
        for settings in (cfg.model, cfg.auxiliary, cfg.drafter):
            if settings and (ROOT / settings.path).is_dir():
                models[settings.name] = settings
    known = {}

    def lookup(model: dict) -> str | None:
        name = model["name"]
        if name in models and name not in known:
            known[name] = Source(models[name]).fingerprint
        return known.get(name)

    return lookup


# compare A B


def compare_door(words: list[str]) -> None:
    """The command `compare`: two words that name runs, then settings as for a figure."""
    options = [word for word in words if word.startswith("-")]
    words = [word for word in words if word not in options]
    before = sys.argv
    sys.argv = [before[0], *options, *words[2:]]  # the two are no overrides, so Hydra does not see them
    try:
        door("report")(lambda cfg: compare(cfg, words[:2]))()
    finally:
        sys.argv = before


def compare(cfg: DictConfig, words: list[str]) -> None:
    if len(words) < 2:
        raise ValueError(f"compare takes two runs, each {A_RUN}")
    if cfg.changed is not None and cfg.changed < 0:
        raise ValueError(f"changed={cfg.changed}: must be 0 or more, or null for all")
    given = sweeps.given()
    folders = [run_folder(word, cfg) for word in words]
    idle = {key_of(line) for line in given} - {"results", "changed", *OF_A_FOLDER}
    if idle and all(folders):
        raise ValueError(f"{', '.join(sorted(idle))}: chooses no run, since both sides are folders")
    read = cache(find_runs)  # both may lie in one collection
    a, b = (
        run_in(folder, cfg, given) if folder else run_of_settings(word, given, read)
        for word, folder in zip(words, folders, strict=True)
    )
    print(json.dumps(show(a, b, cfg.changed)))


def run_folder(word: str, cfg: DictConfig) -> Path | None:
    """The run's folder that a word names; None where it names settings, ValueError where neither."""
    for place in (Path(word), ROOT / word, ROOT / cfg.results / word):
        if os.path.isfile(place / RUN):
            return place
    if "=" not in word:
        raise ValueError(f"{word}: no run there, nor in results={cfg.results}; give {A_RUN}")
    return None


def run_in(folder: Path, cfg: DictConfig, given: list[str]) -> Scored:
    """A run and its scored documents: all, or those that a limit takes."""
    run, said = Run.read(folder), {key_of(line) for line in given}
    metric = cfg.task.metric if "task.metric" in said else run.info.get("metric")
    if not said & {"limit", "task.limit"}:
        return run, run.scored(metric)
    return the_run(collect([run], [Setting(run.config, metric, cfg.limit)]), [run])


def run_of_settings(word: str, given: list[str], read: Callable) -> Scored:
    """The run that eval.py made with these settings, and the documents that their limit takes."""
    configs = sweeps.settings([*given, *word.split()], "report")
    if len(configs) > 1:
        raise ValueError(f"{word}: {len(configs)} settings; compare takes one on each side")
    runs, problems = read(results_of(configs[0]))
    try:
        return the_run(runs_with(configs, runs, not names_threads([*given, *word.split()])), runs)
    except ValueError as error:  # it may be one of those that cannot be read
        raise ValueError("; ".join([str(error), *problems])) from error


def the_run(found: Collection, runs: list[Run]) -> Scored:
    """The only run of a collection, and its scored documents; ValueError where it is missing."""
    for label, why in found.missing:
        raise ValueError(f"{label}: {why}")
    ((name, scored),) = found.scored.items()
    return next(run for run in runs if run.folder.name == name), scored


def names_threads(given: list[str]) -> bool:
    """Whether a command says which threads its runs have."""
    return "threads" in map(key_of, given)


def key_of(line: str) -> str:
    """The key of an override."""
    return line.partition("=")[0].lstrip("+")


if __name__ == "__main__":
    main()
