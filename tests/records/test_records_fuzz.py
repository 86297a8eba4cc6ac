"""Thousands of damaged records: each is read as it was, or refused by a RecordError that names its file."""

import copy
import json
import random
import shutil

import pytest

from unmask.records import RecordError, Run, find_runs
from unmask.records.files import checksum, sealed
from unmask.records.identity import config_hash
from unmask.records.reading import RUN, SAMPLES, SCORES

CONFIG = {"models": {"denoiser": {"name": "tiny"}}, "decoder": {"name": "apd", "mixture_weight": 0.7}}
FILES = (RUN, SAMPLES, SCORES)
JUNK = (
    *(None, True, -1, 0.5, 10**400, float("nan"), float("inf"), "", "\ud800", "x" * 1000, [], {}, [[]]),
    *([None], {"": {}}, {"a": [{"b": float("nan")}]}, [10**30], ["\udfff"], {"denoiser": 10**30}),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, sample, score):
    folder = tmp_path_factory.mktemp("whole") / "run"
    with Run.open(folder, CONFIG, {"documents": {"toy": 3}, "metric": "exact_match,strict"}) as run:
        for doc_id in range(3):
            run.append(sample(doc_id))
        run.write_scores([score(doc_id) for doc_id in range(3)])
        run.update(status="finished")
    return folder


def content(run):
    return run.config, run.samples(), [run.scores(metric) for metric in run.metrics]


def cut(rng, text):
    return text[: rng.randrange(len(text))]


def flip(rng, text):
    found = bytearray(text)
    for _ in range(rng.choice((1, 2, 20))):
        found[rng.randrange(len(found))] = rng.randrange(256)
    return bytes(found)


def insert(rng, text):
    at = rng.randrange(len(text))
    junk = (b"\n", b"\0" * 9, b"\xff\xfe", b"[" * 100_000, b'{"a": ' * 9_999, b"1" * 5000, b"null\n", b"{}\n")
    return text[:at] + rng.choice(junk) + text[at:]


def repeat_key(rng, text):
    return text.replace(b"{", b'{"doc_id": 7, "schema": 3, "config": {}, ', 1)


def change(rng, text):
    """One object with a field dropped, added or of another type; half of them with a checksum that fits."""
    whole = text.startswith(b"{\n")
    lines = [text] if whole else text.splitlines()
    at = rng.randrange(len(lines))
    row = json.loads(lines[at])
    for _ in range(rng.choice((1, 1, 3))):
        inside = rng.choice([row, *(value for value in row.values() if isinstance(value, dict) and value)])
        key = rng.choice([*inside, "unknown", "\ud800"])
        if rng.random() < 0.3:
            inside.pop(key, None)
        else:
            inside[key] = copy.deepcopy(rng.choice(JUNK))
    if rng.random() < 0.7:
        try:
            if "config" in row and "config_hash" in row and rng.random() < 0.7:
                row["config_hash"] = config_hash(row["config"])
            row.pop("checksum", None)
            row["checksum"] = checksum(row, "" if "config" in row else config_hash(CONFIG))
        except ValueError:  # NaN has no checksum
            pass
    lines[at] = json.dumps(row).encode()
    return b"\n".join(lines) + b"\n"


DAMAGES = (cut, flip, insert, repeat_key, *[change] * 4, lambda rng, text: b"")


def check(rng, whole, folder):
    """One damaged copy, read in the three ways."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    name = rng.choice(FILES)
    if rng.random() < 0.03:
        (folder / name).unlink()
        if rng.random() < 0.8:
            (folder / name).mkdir()
    else:
        (folder / name).write_bytes(rng.choice(DAMAGES)(rng, (folder / name).read_bytes()))

    def read(opened):
        try:
            return content(opened())
        except RecordError as error:
            assert str(folder) in str(error)
            str(error).encode()  # printable: no lone surrogate
            return None

    found = read(lambda: Run.read(folder))
    runs, problems = find_runs(folder.parent)
    assert [content(run) for run in runs if found] == [found] * bool(found and runs)
    assert all(str(folder) in problem for problem in problems)
    assert read(lambda: Run.open(folder, CONFIG, {})) in (None, found, (CONFIG, [], []))


def many(whole, folder, seeds):
    for seed in seeds:
        try:
            check(random.Random(seed), whole, folder)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}") from error


@pytest.mark.parametrize(
    "fact",
    [
        {"shapes": {"denoiser": None}},
        {"shapes": {"denoiser": {"layers": 2}}},
        {"documents": {"toy": "3"}},
        {"documents": {"toy": 10**30}},  # a range that long would fill the memory
        {"templates": {"toy": ["a"]}},  # of three documents
        {"templates": {"toy": [["a"]] * 3}},
        {"counts": {"retokenised": {"0/0": None}}},
        {"status": 3},
    ],
    ids=str,
)
def test_a_fact_of_a_wrong_type_is_refused_though_its_checksum_fits(whole, tmp_path, fact):
    folder = shutil.copytree(whole, tmp_path / "run")
    info = json.loads((folder / RUN).read_text())
    del info["checksum"]
    (folder / RUN).write_text(json.dumps(sealed(info | fact)))
    with pytest.raises(RecordError, match=f"run.json: {next(iter(fact))} (is|are)"):
        Run.read(folder)
    assert find_runs(tmp_path)[1]


def test_a_damaged_record_is_refused_by_name(whole, tmp_path):
    many(whole, tmp_path / "run", range(300))


@pytest.mark.slow
def test_thousands_of_damaged_records_are_refused_by_name(whole, tmp_path):
    many(whole, tmp_path / "run", range(1_000, 3_000))
