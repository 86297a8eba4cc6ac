"""Runs written by the real writer, from the configurations that the real doors compose."""

from functools import cache

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from unmask.configuration.settings import identity_of
from unmask.configuration.sweeps import settings
from unmask.paths import ROOT
from unmask.records import Run, config_hash, find_runs
from unmask.records.collection import Setting, collect
from unmask.records.documents import TASK_STRIDE

METRIC = "exact_match,flexible-extract"
SHAPE = {"body_parameters": 1000, "head_parameters": 100, "layers": 2, "width": 16}
FACTS = {
    "documents": 4,  # answered, of each task
    "total": 4,  # that each task has
    "right": 3,  # the first ones
    "per_step": 1,  # tokens; every answer has 6 useful ids of 7
    "positions": 8,  # fed in each step, by every role
    "seconds": 1.0,
    "weights": "aaaaaaaaaaaa",
    "prompts": "bbbbbbbbbbbb",
    "machine": "this, 2 cores, 000000",
    "commit": "0123456789ab",
    "exact": None,
    "metric": METRIC,
    "status": "finished",
    "scored": None,  # how many documents; None = all
    "session": "0a1b2c3d",  # session of turns; None = alone
    "subjects": None,  # names of the tasks of a group
}


@pytest.fixture
def hydra():
    """Hydra, as under a door."""
    with initialize_config_dir(str(ROOT / "eval_config"), version_base=None):
        yield


@cache
def compose_all(*overrides):
    """The configurations of a sweep, under a door or not."""
    if GlobalHydra.instance().is_initialized():
        return settings(overrides)
    with initialize_config_dir(str(ROOT / "eval_config"), version_base=None):
        return settings(overrides)


@pytest.fixture
def record(tmp_path, monkeypatch):
    """record("figure=fig3", ...) writes the run of each setting to tmp_path/results; returns their folders.

    Keywords are FACTS, each a value or a function of the setting's configuration; a run that is there already
    stays as it is, as where two figures share it.
    """
    monkeypatch.setattr("os.fsync", lambda file: None)  # no test ends in a power cut

    def write(*overrides, identity=None, **given):
        folders = []
        for cfg in compose_all(*overrides, "threads=1"):
            facts = {key: value(cfg) if callable(value) else value for key, value in (FACTS | given).items()}
            config = identity_of(cfg) | (identity or {})
            for model in config["models"].values():
                model["weights"] = facts["weights"]
            config["task"] = config["task"] | {"prompts": facts["prompts"]}
            name = f"{config['task']['name']}-{config['decoder']['name']}-{config_hash(config)}"
            folders.append(tmp_path / "results" / name)
            if not folders[-1].exists():
                _decode(folders[-1], config, facts)
                _finish(folders[-1], config, facts)
        return folders

    return write


@pytest.fixture
def read(tmp_path):
    """read("figure=fig3", ...) -> what a report of these settings reads from tmp_path/results."""

    def run(*overrides, limit=4, metric=METRIC, weights=None):
        configs = compose_all(*overrides, "threads=1")
        wanted = [Setting(identity_of(cfg), metric, limit, arm=cfg.arm) for cfg in configs]
        return collect(find_runs(tmp_path / "results")[0], wanted, weights)

    return run


def _decode(folder, config, facts):
    tasks = _tasks(config, facts)
    meta = {
        "documents": dict.fromkeys(tasks, facts["total"]),
        "metric": METRIC,
        "shapes": dict.fromkeys(config["roles"], SHAPE),
    }
    with Run.open(folder, config, meta) as run:
        for place, task in enumerate(tasks):
            for i in range(facts["documents"]):
                run.append(_sample(place * TASK_STRIDE + i, task, config, facts))


def _finish(folder, config, facts):
    right = facts["right"] if facts["subjects"] else [facts["right"]]
    with Run.open(folder, config, {}) as run:
        places = [divmod(doc_id, TASK_STRIDE) for doc_id, _ in sorted(run.done)][: facts["scored"]]
        run.write_scores(
            _score(place * TASK_STRIDE + i, i < right[place], facts["metric"]) for place, i in places
        )
        run.update(status=facts["status"])


def _tasks(config, facts):
    return facts["subjects"] or [config["task"]["name"]]


def _sample(doc_id, task, config, facts):
    roles, per_step = config["roles"], facts["per_step"]
    steps = -(-6 // per_step)
    return {
        "doc_id": doc_id,
        "repeat": 0,
        "task": task,
        "prompt_hash": facts["prompts"],
        "prompt_length": 10,
        "seed": doc_id,
        "ids": list(range(7)),
        "commits": [min(k // per_step, steps - 1) for k in range(7)],
        "text": "",
        "useful": 6,
        "finish": "stop",
        "forwards": dict.fromkeys(roles, steps),
        "positions": dict.fromkeys(roles, steps * facts["positions"]),
        "seconds": facts["seconds"],
        "max_new_tokens": config["task"]["max_new_tokens"],
        "batch_size": config["batch_size"],
        "batch": doc_id,
        "exact": facts["exact"],
        "commit": facts["commit"],
        "machine": facts["machine"],
        "session": facts["session"],
    }


def _score(doc_id, correct, metric):
    return {
        "doc_id": doc_id,
        "repeat": 0,
        "metric": metric,
        "correct": float(correct),
        "extraction_failed": False,
        "extracted": "1",
        "target": "1",
    }
