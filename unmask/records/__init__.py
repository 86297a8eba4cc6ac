"""The result schema: what a run leaves on disk, and every number derived from it.

A run is a folder:

    samples.jsonl   one line per generated document, appended and synced as it finishes: facts, never edited
    scores.jsonl    one line per document, derived, replaced atomically whenever the answers are scored again
    run.json        the recipe (config and its hash), the circumstances (commit, versions, device), the status

Rooms: `run` (the folder, resume, locking), `sample` (the schema and its integrity rules), `recipe` (the
config as an identity), `environment` (the circumstances), `stats` (intervals and tests), `summary` (the
accounting). The last two need scipy and are imported by name, so that writing a record needs the standard
library alone.
"""

from unmask.records.environment import environment
from unmask.records.files import RecordError
from unmask.records.recipe import config_hash
from unmask.records.run import Run, find_runs
from unmask.records.sample import SCHEMA, Sample, check_sample, check_score

__all__ = [
    "SCHEMA",
    "RecordError",
    "Run",
    "Sample",
    "check_sample",
    "check_score",
    "config_hash",
    "environment",
    "find_runs",
]
