"""Runs written by the real writer, from the configurations that the real doors compose."""

import unmask  # noqa: F401, I001  (first: it quiets the libraries below)

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from unmask.config import ROOT
from unmask.records import Run, config_hash
from unmask.settings import recipe
from unmask.sweeps import settings

SHAPE = {"body_parameters": 1000, "head_parameters": 100, "layers": 2, "width": 16}
METRIC = "exact_match,flexible-extract"


@pytest.fixture
def hydra():
    """Hydra, as under a door."""
    with initialize_config_dir(str(ROOT / "eval_config"), version_base=None):
        yield


def compose_all(overrides):
    """The configurations of a sweep, under a door or not."""
    if GlobalHydra.instance().is_initialized():
        return settings(overrides)
    with initialize_config_dir(str(ROOT / "eval_config"), version_base=None):
        return settings(overrides)


@pytest.fixture
def record(tmp_path):
    """record("figure=fig3", "limit=4", ...) writes the run of each setting; returns their folders.

    Every answer has 6 useful ids of 7; the first `right` documents are right. `per_step` useful tokens a
    step come at `positions` fed. Keywords are a number, or a function of the setting's configuration.
    """

    def write(
        *overrides,
        root=None,
        right=3,
        documents=4,
        total=4,
        per_step=1,
        positions=8,
        seconds=1.0,
        weights="aaaaaaaaaaaa",
        prompts="bbbbbbbbbbbb",
        machine="this, 2 cores, 000000",
        commit="0123456789ab",
        scored=METRIC,
        exact=None,
        **changes,
    ):
        folders = []
        for cfg in compose_all([*overrides, "threads=1"]):

            def of(value, cfg=cfg):
                return value(cfg) if callable(value) else value

            config = recipe(cfg) | changes
            for model in config["models"].values():
                model["weights"] = of(weights)
            config["task"] = config["task"] | {"prompts": of(prompts)}
            folder = (root or tmp_path / "results") / f"{config['decoder']['name']}-{config_hash(config)}"
            folders.append(folder)
            if folder.exists():  # two figures share a run
                continue
            meta = {
                "git_commit": None,
                "documents": {config["task"]["name"]: total},
                "metric": METRIC,
                "shapes": dict.fromkeys(config["roles"], SHAPE),
            }
            with Run.open(folder, config, meta) as run:
                facts = [of(fact) for fact in (per_step, positions, seconds, machine, commit, exact)]
                for i in range(of(documents)):
                    run.append(_sample(i, config, *facts))
                if scored:
                    run.write_scores(_score(i, float(i < of(right)), scored) for i in range(of(documents)))
        return folders

    return write


def _sample(i, config, per_step, positions, seconds, machine, commit, exact):
    roles = config["roles"]
    steps = -(-6 // per_step)
    return {
        "doc_id": i,
        "repeat": 0,
        "task": config["task"]["name"],
        "prompt_hash": "ab",
        "prompt_length": 10,
        "seed": i,
        "ids": list(range(7)),
        "commits": [min(k // per_step, steps - 1) for k in range(7)],
        "text": "",
        "useful": 6,
        "finish": "stop",
        "forwards": dict.fromkeys(roles, steps),
        "positions": dict.fromkeys(roles, steps * positions),
        "seconds": seconds,
        "budget": config["task"]["budget"],
        "batch_size": config["batch_size"],
        "batch": i,
        "exact": exact,
        "commit": commit,
        "machine": machine,
    }


def _score(i, correct, metric):
    return {
        "doc_id": i,
        "repeat": 0,
        "metric": metric,
        "correct": correct,
        "extraction_failed": False,
        "extracted": "1",
        "target": "1",
    }
