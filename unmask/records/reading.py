"""What lies in a run's folder, read and checked: every line against its checksum and the schema's rules."""

from collections.abc import Callable, Iterable, Mapping
from math import inf
from pathlib import Path

from unmask.records.documents import TASK_STRIDE
from unmask.records.files import PUT_BACK, RecordError, read_json, read_jsonl, unsealed
from unmask.records.identity import canonical, config_hash, differences
from unmask.records.sample import SCHEMA, Sample, check_sample
from unmask.records.score import Score, check_score

SAMPLES, SCORES, RUN = "samples.jsonl", "scores.jsonl", "run.json"

CONFIG_HASH = "config_hash"  # what run.json says as `seal`, see `seal_of`

INFO = {"config": dict, "config_hash": str, "resumed": list}  # what reading needs of run.json
SHAPE = {"body_parameters", "head_parameters", "layers", "width"}  # of each model

Key = tuple[int, int]  # doc_id, repeat
ScoreKey = tuple[int, int, str]  # doc_id, repeat, metric

MAKE_AGAIN = "Delete the line; the document that it held is then made again"
SCORE_AGAIN = "Delete the file, it is derived: score again"


def read_info(path: Path) -> dict:
    """The content of run.json; RecordError for another schema, or where anything in it was changed."""
    return check_info(read_json(path), path, PUT_BACK)


def check_info(info: dict, where: object, advice: str) -> dict:
    """The content of run.json without its checksum, where it is of this schema and as it was written."""
    if info.get("schema") != SCHEMA:
        raise RecordError(
            f"{where}: has schema {info.get('schema')!r}, and this program reads {SCHEMA}: "
            "make it again in another `run_folder`"
        )
    info = unsealed(info, where, advice)
    for key, kind in INFO.items():
        if not isinstance(info.get(key), kind):
            raise RecordError(f"{where}: {key} is missing or of a wrong type. {advice}")
    if config_hash(info["config"]) != info["config_hash"]:
        raise RecordError(f"{where}: config_hash is not that of its config. {advice}")
    for key, is_right in FACTS.items():
        if info.get(key) is not None and not is_right(info[key]):
            raise RecordError(f"{where}: {key} is of a wrong type. {advice}")
    documents, templates = info.get("documents") or {}, info.get("templates") or {}
    if any(len(names) != documents.get(task) for task, names in templates.items()):
        raise RecordError(f"{where}: templates are not of its documents. {advice}")
    return info


def _numbers(value: object) -> bool:
    """Whether it is names with numbers of 0 or more, all of them finite."""
    return isinstance(value, dict) and all(
        type(number) in (int, float) and 0 <= number < inf for number in value.values()
    )


def _documents(value: object) -> bool:
    return _numbers(value) and all(type(n) is int and n < TASK_STRIDE for n in value.values())


def _templates(value: object) -> bool:
    """A list of names for each task."""
    lists = isinstance(value, dict) and all(isinstance(names, list) for names in value.values())
    return lists and not any(isinstance(n, list | dict) for names in value.values() for n in names)


def _shapes(value: object) -> bool:
    return isinstance(value, dict) and all(_numbers(each) and each.keys() >= SHAPE for each in value.values())


FACTS: dict[str, Callable] = {  # what else is read of run.json, where it is there
    "status": lambda value: isinstance(value, str),
    "metric": lambda value: isinstance(value, str),
    "documents": _documents,
    "templates": _templates,
    "shapes": _shapes,
    "summary": lambda value: isinstance(value, dict) and type(value.get("samples", 0)) is int,
    "counts": lambda value: isinstance(value, dict) and _numbers(value.get("retokenised", {})),
}


def stored_info(folder: Path, config: Mapping) -> dict | None:
    """The run.json of the run of this config in a folder, None where nothing is written yet.

    RecordError for anything else: another config's run, or files that are no run.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise RecordError(f"{folder}: is not a folder; choose another `run_folder`")
    if not (folder / RUN).exists():
        # killed before run.json: an empty samples.jsonl and hidden temporary files are ours
        strange = [
            path.name
            for path in folder.iterdir()
            if not path.name.startswith(".") and not (path.name == SAMPLES and path.stat().st_size == 0)
        ]
        if strange:
            raise RecordError(
                f"{folder}: holds {some(sorted(strange))} but no {RUN}, so it is no run to resume; choose "
                "another `run_folder`, or move these files away"
            )
        return None
    stored = read_info(folder / RUN)
    check_config(stored, config, folder)
    return stored


def check_config(info: Mapping, config: Mapping, folder: Path) -> None:
    """RecordError, naming what differs, where a run.json is of another config."""
    if config_hash(info["config"]) != config_hash(config):
        listed = "".join(
            f"\n  {key}: {canonical(theirs)} there, {canonical(ours)} here"
            for key, (theirs, ours) in differences(info["config"], config).items()
        )
        raise RecordError(f"{folder / RUN}: is of another config; choose another `run_folder`.{listed}")


def archives_in(results: Path) -> list[Path]:
    """The archives of a collection (see `archive`): those in a folder, or the file itself."""
    if results.suffix == ".parquet" and results.is_file():
        return [results]
    return sorted(results.glob("[!.]*.parquet"))


def seal_of(info: Mapping) -> str:
    """With what a run seals its rows (`files.sealed`): older ones with nothing, so that a row of theirs which
    strays into another old run is not noticed."""
    return info["config_hash"] if info.get("seal") == CONFIG_HASH else ""


def read_samples(path: Path, of: str) -> tuple[dict[Key, Sample], int]:
    """(samples by key, bytes that they fill); a last line that an interrupted write tore is left out.
    of: see `seal_of`."""
    rows, size = read_jsonl(path, MAKE_AGAIN)
    rows = [unsealed(row, f"{path}:{number}", MAKE_AGAIN, of) for number, row in enumerate(rows, 1)]
    return by_key(rows, check_sample, sample_key, path), size


def read_scores(path: Path, of: str) -> dict[ScoreKey, Score]:
    """Scores by key. The file is written whole, so that a torn line is damage like any other."""
    rows, size = read_jsonl(path, SCORE_AGAIN)
    if path.exists() and size != path.stat().st_size:
        raise RecordError(f"{path}: the last line is damaged. {SCORE_AGAIN}")
    rows = [unsealed(row, f"{path}:{number}", SCORE_AGAIN, of) for number, row in enumerate(rows, 1)]
    return by_key(rows, check_score, score_key, path)


def sample_key(row: Mapping) -> Key:
    return row["doc_id"], row["repeat"]


def score_key(row: Mapping) -> ScoreKey:
    return row["doc_id"], row["repeat"], row["metric"]


def by_key(rows: Iterable[Mapping], check: Callable, key: Callable, where: object) -> dict:
    """Checked rows by their key. No writer repeats a key, so a repeated one was copied in by hand.

    Equal rows then count once; different ones leave nobody to say which is true and raise RecordError.
    """
    found, lines = {}, {}
    for number, row in enumerate(rows, 1):
        try:
            check(row)
        except RecordError as error:
            raise RecordError(f"{where}:{number}: {error}") from None
        first = found.setdefault(key(row), dict(row))
        line = lines.setdefault(key(row), number)
        if first != row:
            raise RecordError(
                f"{where}:{number}: contradicts line {line} about document {key(row)}; delete one"
            )
    return found


def some(items: list) -> str:
    """The first few items, for a message."""
    return ", ".join(map(str, items[:5])) + (", ..." if len(items) > 5 else "")
