"""The result schema: what a run leaves on disk, and every number derived from it.

A run is a folder:

    samples.jsonl   one line per generated document, appended and synced as it finishes: facts, never edited
    scores.jsonl    one line per document and metric, derived, replaced whole when answers are scored again
    run.json        the identity (config and its hash), the circumstances (commit, machine, ...), the status

Every line, and run.json, carries a checksum of the rest: what changed on disk is found when it is read.

Rooms:

    run            the folder: resume, locking
    reading        what lies in it, checked
    sample, score  the schema and its integrity rules
    trace          how a few answers came about, step by step
    documents      which documents a limit takes
    identity       the config as an identity; naming: what it is called
    environment    the circumstances, machine and commit
    stats, flops   intervals and tests; an estimate of the work
    summary        the accounting of a run
    comparing      of two runs, paired by document
    collection     the runs of a sweep

Those that need scipy or pandas (stats, summary, comparing, collection) are imported by name, so that writing
a record needs the standard library alone.
"""

from unmask.records.environment import environment
from unmask.records.files import RecordError
from unmask.records.identity import config_hash
from unmask.records.run import Run, find_runs
from unmask.records.sample import SCHEMA, Sample, check_sample
from unmask.records.score import Score, check_score

__all__ = [
    "SCHEMA",
    "RecordError",
    "Run",
    "Sample",
    "Score",
    "check_sample",
    "check_score",
    "config_hash",
    "environment",
    "find_runs",
]
