"""All runs in a folder as one table: what was run, where, and every number that is made of it."""

from pathlib import Path

import pandas as pd

from unmask.records.run import find_runs
from unmask.records.summary import summarise

SYMBOLS = {
    "mixture_weight": "R",
    "tokens_per_step": "K",
    "kv_window": "W",
    "max_lookahead": "M",
    "steps": "T",
    "block_length": "B",
}
ROUTINE = {
    "temperature",
    "top_p",
    "top_k",
    "chunk",
    "coupling",
    "_target_",
}  # of a decoder, besides what has a symbol


def decoder_name(config: dict) -> str:
    return config["decoder"]["_target_"].split(".")[2]


def label(config: dict) -> str:
    """A decoder and its settings in a few words, as in "apd R=0.5 W=16"."""
    settings = {
        SYMBOLS.get(key, key): value for key, value in config["decoder"].items() if key not in ROUTINE
    }
    return " ".join(
        [decoder_name(config), *(f"{key}={value}" for key, value in settings.items() if value is not None)]
    )


def one_token(runs: pd.DataFrame) -> pd.Series:
    """Which runs are one token a step from the left, without cache and limit: what all others are compared
    with."""
    return (runs.decoder == "leftright") & (runs.K == 1) & runs[["W", "M"]].isna().all(axis=1)


def table(root: Path) -> tuple[pd.DataFrame, dict[str, list[dict]]]:
    """(a row per finished run, its scored samples by run folder name). RecordError names a damaged file.

    Columns: run, model, task, decoder, label, R K W M T B, batch_size, hardware, dtype, commit, n, and all of
        summary.summarise.
    """
    rows, samples = [], {}
    for run in find_runs(root):
        if run.info.get("status") != "finished":
            continue
        config, name = run.config, run.folder.name
        scored = samples[name] = run.scored()
        knobs = {symbol: config["decoder"].get(key) for key, symbol in SYMBOLS.items()}
        cpu = f"{run.info['cpu']}, {config['device'].partition(', ')[2]}"
        rows.append(
            {
                "run": name,
                "model": config["model"]["name"],
                "auxiliary": (config["auxiliary"] or {}).get("name"),
                "task": config["task"]["name"],
                "decoder": decoder_name(config),
                "label": label(config),
                **knobs,
                "batch_size": config["batch_size"],
                "hardware": cpu if config["device"].startswith("cpu") else config["device"],
                "dtype": config["dtype"],
                "commit": (run.info["git_commit"] or "")[:7] + ("+" if run.info["git_dirty"] else ""),
            }
            | summarise(scored)
        )
    return pd.DataFrame(rows), samples
