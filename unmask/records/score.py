"""What is written down about the correctness of one generated document, by one metric."""

from collections.abc import Mapping
from typing import TypedDict

from unmask.records.files import RecordError


class Score(TypedDict):
    """One judgement. All fields are required and there are no others.

    A line of scores.jsonl is this and a `checksum`. There is one for each (doc_id, repeat, metric).
    """

    doc_id: int
    repeat: int
    metric: str  # metric and filter, as in "exact_match,flexible-extract"
    correct: float | None  # from 0 to 1; None where the answer cannot be scored
    extraction_failed: bool  # no answer could be read from the text
    extracted: str | None  # the answer that was read
    target: str | None  # the answer that was wanted


def check_score(score: Mapping) -> None:
    """Raise RecordError, naming the document, unless a score has the schema's form."""
    where = f"score of document {score.get('doc_id')!r} by {score.get('metric')!r}"
    if wrong := score.keys() ^ Score.__annotations__.keys():
        raise RecordError(f"{where}: missing or unknown fields {sorted(map(str, wrong))}")
    for name in ("doc_id", "repeat"):
        if type(score[name]) is not int or score[name] < 0:
            raise RecordError(f"{where}: {name} must be an integer >= 0, got {score[name]!r}")
    if not isinstance(score["metric"], str) or not score["metric"]:
        raise RecordError(
            f"{where}: metric must name a metric and its filter, as in 'exact_match,flexible-extract'"
        )
    correct = score["correct"]
    number = isinstance(correct, (int, float)) and not isinstance(correct, bool)
    if correct is not None and not (number and 0 <= correct <= 1):
        raise RecordError(f"{where}: correct must be a number from 0 to 1, or None, got {correct!r}")
    if not isinstance(score["extraction_failed"], bool):
        raise RecordError(f"{where}: extraction_failed must be a bool, got {score['extraction_failed']!r}")
    for name in ("extracted", "target"):
        if not isinstance(score[name], str | None):
            raise RecordError(f"{where}: {name} must be a string or None, got {score[name]!r}")
