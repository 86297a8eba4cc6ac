"""Figures and tables from records:  python report.py figure=fig3

    python report.py                                        # every figure that results/ has runs of
    python report.py figure=tab1 results=results/reference  # one figure of another collection
    python report.py figure=fig3 limit=50 seed=1            # the runs of eval.py with the same settings
    python report.py page=true                              # all finished runs in a page for the browser

A figure is its sweep: the settings are those of `eval.py figure=NAME` with the same overrides, and exactly
their runs are read; what is missing is named. For every figure: PNG, SVG and the CSV behind it, for tables
Markdown and LaTeX, in <results>/figures/ (of results/reference: in figures/). Runs no model. Published points
stand in panels of their own, with their hardware, and are never joined with ours.
"""

import unmask  # noqa: F401, I001  (first: it quiets the libraries below)

import json
import os
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from unmask import sweeps
from unmask.cli import door
from unmask.config import ROOT
from unmask.models.loading import Source
from unmask.models.resources import choose_device
from unmask.plots.definition import Definition, define
from unmask.plots.figures import draw, drawable
from unmask.records import find_runs
from unmask.records.collection import Collection, Setting, collect
from unmask.settings import recipe, typed

FIGURES = sorted(path.stem for path in (ROOT / "eval_config" / "figure").glob("*.yaml"))
REFERENCE = ROOT / "results" / "reference"
OWN = ("figure", "results", "published", "pictures", "page")  # settings that choose no run


def main() -> None:
    with sweeps.lists_allowed():
        report()


@door("report")
def report(cfg: DictConfig) -> None:
    given = sweeps.given()
    results = ROOT / cfg.results
    if not results.is_dir():
        raise ValueError(f"results={cfg.results}: no such folder; run something first (python eval.py)")
    if cfg.page:
        return page(cfg, given, results)
    wanted = sweeps.figure_named(given)
    given = [line for line in given if not line.startswith("figure=")]
    (runs, problems), drawn, refused = find_runs(results), {}, []
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    for name in [wanted] if wanted else FIGURES:
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
        raise ValueError(f"{cfg.results}: has no runs of {wanted or 'any figure'} with these settings")
    print(json.dumps(drawn))


def page(cfg: DictConfig, given: list[str], results: Path) -> None:
    """Write the page; it shows all finished runs, so that settings which choose runs are refused."""
    if chosen := [line for line in given if line.startswith("figure=") or setting_of(line) not in OWN]:
        raise ValueError(f"page=true shows every finished run of results: leave out {' '.join(chosen)}")
    from unmask.page.build import write  # its libraries are for the page alone

    file, count, left_out = write(results, pictures(cfg, given) / "page")
    for why in left_out:
        print(f"left out: {why}", file=sys.stderr)
    print(f"page: {os.path.relpath(file)} ({count} runs, {file.stat().st_size / 1e6:.1f} MB)")
    print(json.dumps({"page": os.path.relpath(file)}))


def setting_of(line: str) -> str:
    """The key of an override."""
    return line.partition("=")[0].lstrip("+")


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
    changed = [line for line in given if setting_of(line) not in OWN]
    return ROOT / "figures" if results == REFERENCE.resolve() and not changed else results / "figures"


def runs_of(name: str, given: list[str], runs: list) -> tuple[Collection, Definition]:
    """(the runs of a figure's sweep, its definition).

    device=auto means the device that made the runs: this machine's kind, or else the other.
    """
    configs = sweeps.settings([*given, f"figure={name}"], "report")
    first = OmegaConf.to_container(configs[0])
    definition = define(name, first.get("draw"))
    here = choose_device("auto").type
    found = None
    for device in (here, "cpu" if here == "cuda" else "cuda"):
        settings = [Setting(recipe_on(cfg, device), cfg.task.metric, cfg.limit) for cfg in configs]
        other = collect(runs, settings, weights_of(configs))
        if found is None or not other.rows.empty:
            found = other
        if not found.rows.empty or all(cfg.device != "auto" for cfg in configs):
            break
    return found, definition


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


if __name__ == "__main__":
    main()
