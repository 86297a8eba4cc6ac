"""A collection of runs, read by settings: each wanted setting is the run of exactly these settings, or is
missing.

Whatever else lies in the folder (other seeds, batch sizes, limits of new tokens, weights, figures) changes
nothing. Only `everything` takes all that is there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from unmask.records.documents import chosen
from unmask.records.files import RecordError
from unmask.records.identity import ABSENT, canonical, config_hash, differences
from unmask.records.naming import label, labels, main_model, symbols
from unmask.records.run import Run
from unmask.records.summary import positions_per_useful_token, summarise

NEAR = 3  # settings in which a run may differ from the wanted one to be worth naming


@dataclass(frozen=True)
class Setting:
    """A run that is wanted.

    identity: as far as a configuration tells it, without weights and prompts; what else it leaves
    out, or gives as "auto", is open too.
    metric: "metric,filter" that decides whether an answer is correct; None: unscored.
    limit, subset_seed, listed: which documents, see `documents.chosen`.
    arm: its name in the figure, if it has one.
    """

    identity: Mapping
    metric: str | None
    limit: int | None = None
    subset_seed: int | None = None
    listed: Sequence[int] | str | None = None
    arm: str | None = None


@dataclass
class Collection:
    """The runs of a sweep.

    rows: one per setting that was found, in the sweep's order: run (folder name), arm, model, task,
        decoder, label, plain (the label without what sets it apart from others of the sweep),
        `naming.SYMBOLS`, conditions (hash of all settings but the decoder's), batch_size,
        seed, max_new_tokens, device, dtype, threads, positions_per_useful_token, and all of
        `summary.summarise`.
    scored, configs: by run: its scored documents, its identity.
    missing: (label, why) of every setting that has no run.
    """

    rows: pd.DataFrame
    scored: dict[str, list[dict]] = field(default_factory=dict)
    configs: dict[str, dict] = field(default_factory=dict)
    missing: list[tuple[str, str]] = field(default_factory=list)


# a model of an identity -> the fingerprint that is wanted, if known
Weights = Callable[[Mapping], str | None]


def collect(runs: Sequence[Run], settings: Sequence[Setting], weights: Weights | None = None) -> Collection:
    """The run of every setting, from `find_runs`.

    A run counts when its identity agrees with everything that the setting says, and it has all documents
    that the limit takes, scored by the metric; whether it is finished, or has more, makes no difference.
    Where several count (of other weights or prompts), `weights` says which is wanted.

    RecordError, naming both folders, where that leaves several, or where two runs of one model have other
    weights, or of one model and task other prompts.
    """
    wanted = {canonical(setting.identity): setting for setting in settings}
    if len(wanted) < len({canonical([s.identity, s.metric, s.limit]) for s in settings}):
        raise RecordError("limit, metric: a figure has one; settings that differ in nothing else share a run")
    settings = list(wanted.values())
    names = _names([setting.identity for setting in settings])
    found, missing = [], []
    for name, setting in zip(names, settings, strict=True):
        fits, why = _fitting(runs, setting)
        if len(fits) > 1:  # a number may be written as 0 or 0.0, which are two identities
            written = canonical(setting.identity["decoder"])
            fits = [fit for fit in fits if canonical(fit[0].config["decoder"]) == written] or fits
        if len(fits) > 1 and weights:
            wanted = [fit for fit in fits if _has_weights(fit[0].config, weights)]
            fits = wanted or fits
        if len(fits) > 1:
            raise RecordError(_several(name, [run for run, _ in fits]))
        if fits:
            found.append((name, *fits[0], setting.arm))
        else:
            missing.append((f"{name}{_on(setting.identity)}", why))
    _check_alike([run for _, run, *_ in found])
    return _collection(found, missing)


def everything(runs: Sequence[Run]) -> Collection:
    """Every finished run of a folder, from `find_runs`, by the metric that decided when it was made.

    `missing` names the folder of each run that is left out, and why. Whether two runs compare is for the
    reader: unlike in a sweep, weights and prompts may differ.
    """
    found, missing = [], []
    for run in runs:
        try:
            found.append((run, _finished(run)))
        except RecordError as error:
            missing.append((run.folder.name, str(error)))
    names = _names([run.config for run, _ in found])
    return _collection([(name, *each) for name, each in zip(names, found, strict=True)], missing)


def _finished(run: Run) -> list[dict]:
    """All documents of a finished run, scored; RecordError where it is not finished or not scored."""
    if run.info.get("likelihoods"):
        raise RecordError(f"{run.folder}: holds likelihoods and no answers")
    status, metric = run.info.get("status"), run.info.get("metric")
    if status != "finished" or not metric:
        raise RecordError(
            f"{run.folder}: is {status}, not finished: the command that made it goes on with it"
        )
    scored = run.scored(metric)
    if not scored:
        raise RecordError(f"{run.folder}: has no answers")
    return scored


def _collection(found: Sequence[tuple], missing: list[tuple[str, str]]) -> Collection:
    """found: (label, run, its scored documents, and its arm if there is one) of each setting."""
    return Collection(
        pd.DataFrame([_row(*each) for each in found]),
        {run.folder.name: scored for _, run, scored, *_ in found},
        {run.folder.name: run.config for _, run, *_ in found},
        missing,
    )


def _names(identities: Sequence[Mapping]) -> list[str]:
    """A label for each identity, of its own among those of the same model and task."""
    groups = [_on(each) for each in identities]
    names = [""] * len(identities)
    for group in dict.fromkeys(groups):
        at = [i for i, other in enumerate(groups) if other == group]
        for i, name in zip(at, labels([identities[i] for i in at]), strict=True):
            names[i] = name
    return names


def _fitting(runs: Sequence[Run], setting: Setting) -> tuple[list[tuple[Run, list[dict]]], str]:
    """([(run, its scored documents)] of this setting, why there is none)."""
    fits, reasons, nearest = [], [], None
    for run in runs:
        differing = _disagreements(run.config, setting.identity)
        if differing:
            if nearest is None or len(differing) < len(nearest[1]):
                nearest = run, differing
            continue
        scored, reason = _scored(run, setting)
        if scored is None:
            reasons.append(reason)
        else:
            fits.append((run, scored))
    if reasons or not nearest or len(nearest[1]) > NEAR:
        return fits, "; ".join(reasons) or "no such run"
    run, differing = nearest
    keys = [
        f"{key} ({_shown(there)} there, {_shown(ours)} wanted)" for key, (there, ours) in differing.items()
    ]
    return fits, f"no such run; the nearest, {run.folder.name}, differs in {', '.join(keys)}"


def _shown(value: object) -> str:
    return "null" if value is None else str(value)


def _disagreements(config: Mapping, wanted: Mapping) -> dict[str, tuple[object, object]]:
    """Dotted keys of a wanted identity in which a run's identity differs: (the run's, the wanted).

    A decoder or a model of other settings than the wanted one is another one.
    """
    whole = {"decoder", "models"}
    found = {}
    for key, (theirs, ours) in differences(config, wanted).items():
        open_ = ours == "auto" or key.endswith(".weights") or key == "task.prompts"
        alike = {type(theirs), type(ours)} == {int, float} and theirs == ours  # 0 and 0.0
        if not (open_ or alike) and (ours != ABSENT or key.split(".")[0] in whole):
            found[key] = theirs, ours
    return found


def _scored(run: Run, setting: Setting) -> tuple[list[dict] | None, str]:
    """(the documents that the setting takes, scored by its metric; None and why not)."""
    name = run.folder.name
    if not (documents := run.info.get("documents")):
        return None, f"{name}: its run.json does not say which documents its task has"
    drawn = (setting.subset_seed, run.info.get("templates"), setting.listed)
    wanted = {(i, 0) for i in chosen(documents, setting.limit, *drawn)}
    if absent := wanted - run.done:
        return None, f"{name}: {len(wanted) - len(absent)} of {len(wanted)} documents"
    try:
        return run.scored(setting.metric, wanted), ""
    except RecordError as error:
        return None, str(error)


def _has_weights(config: Mapping, weights: Weights) -> bool:
    known = [(model["weights"], weights(model)) for model in config["models"].values()]
    return all(wanted in (None, theirs) for theirs, wanted in known)


def _several(name: str, runs: Sequence[Run]) -> str:
    first, second = runs[:2]
    keys = ", ".join(differences(first.config, second.config)) or "nothing: one is a copy"
    return (
        f"{name}: {first.folder} and {second.folder} are both of this setting (they differ in {keys}); move "
        "the one that is not meant out of the folder"
    )


def _check_alike(runs: Sequence[Run]) -> None:
    """RecordError where runs of one sweep have other weights of a model, or other prompts of a task."""
    seen: dict[tuple, tuple[object, Run]] = {}
    for run in runs:
        config = run.config
        task = {key: value for key, value in config["task"].items() if key != "prompts"}
        first = main_model(config)
        facts = {("weights of", m["name"], m["adapter"]): m["weights"] for m in config["models"].values()}
        facts["prompts for", first["name"], canonical(task)] = config["task"]["prompts"]
        for key, value in facts.items():
            theirs, other = seen.setdefault(key, (value, run))
            if theirs != value:
                raise RecordError(
                    f"{other.folder} and {run.folder} have other {key[0]} {key[1]}, so they make no figure "
                    "together; evaluate the older one again and move it out of the folder"
                )


def _row(name: str, run: Run, scored: list[dict], arm: str | None = None) -> dict:
    config = run.config
    summary = summarise(scored, run.info.get("shapes"), run.info.get("counts"))
    decoder, task = config["decoder"], config["task"]
    conditions = {k: v for k, v in config.items() if k not in ("decoder", "models", "roles")}
    return {
        "run": run.folder.name,
        "arm": arm,
        "model": main_model(config)["name"],
        "task": task["name"],
        "decoder": decoder["name"],
        "label": name,
        "plain": label(config),
        **symbols(config),
        "conditions": config_hash(conditions)[:6],
        "batch_size": config["batch_size"],
        "seed": config["seed"],
        "max_new_tokens": task["max_new_tokens"],
        "device": config["device"],
        "dtype": config["dtype"],
        "threads": config["threads"],
        "positions_per_useful_token": positions_per_useful_token(summary),
    } | summary


def _on(identity: Mapping) -> str:
    """Model and task, for a message."""
    return f" on {main_model(identity)['name']}, {identity['task']['name']}"
