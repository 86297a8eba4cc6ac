"""Names that results are filed by, and records where the locale is ASCII."""

import os
import subprocess
import sys

import pytest

from unmask.configuration.composition import composed
from unmask.configuration.settings import build_decoder, typed
from unmask.paths import ROOT
from unmask.records import Run
from unmask.records.naming import check_name

BAD = ("../../x", "[/b]", "nope/..", "", ".hidden", "a b", "x" * 81, "\ud800", "a\n", "é", None, 3)


@pytest.mark.parametrize("value", ["tiny_dream", "qwen_0.5b", "a-b", "_", "x" * 80])
def test_a_plain_name_passes(value):
    check_name("model.name", value)


@pytest.mark.parametrize("value", BAD)
def test_a_name_that_is_a_path_or_markup_is_refused(value):
    with pytest.raises(ValueError, match=r"model\.name=.*letters, digits") as caught:
        check_name("model.name", value)
    str(caught.value).encode()


@pytest.mark.parametrize("key", ["model.name", "task.name"])
def test_names_of_models_and_tasks_are_checked(key):
    with pytest.raises(ValueError, match=key.replace(".", r"\.")):
        typed(composed("eval", [f"{key}=../../x"]))


def test_a_decoders_name_is_a_choice_or_its_authors():
    decoder = composed("eval", ["decoder=leftright"]).decoder
    build_decoder(decoder)
    for name in ("nope/..", "nope", "[/b]"):
        with pytest.raises(ValueError, match=r"decoder\.name="):
            build_decoder({**decoder, "name": name})


def test_records_are_utf8_under_an_ascii_locale(tmp_path, sample):
    folder = tmp_path / "rün"
    with Run.open(folder, {"decoder": {"name": "apd"}}, {"note": "ü"}) as run:
        run.append(sample(0))
    code = (
        "import os, sys; from pathlib import Path; from unmask.records import Run, find_runs\n"
        "folder = Path(os.fsdecode(os.environb[b'FOLDER']))\n"
        "runs, problems = find_runs(folder.parent)\n"
        "assert len(runs) == 1 and not problems and runs[0].info['note'] == chr(252)\n"
        "with Run.open(folder, {'decoder': {'name': 'apd'}}, {'note': chr(252)}) as run:\n"
        "    run.append({**run.samples()[0], 'doc_id': 1, 'text': chr(0x4e00)})\n"
        "    run.update(status='finished', note=chr(0x4e00))\n"
    )
    ascii_ = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "FOLDER": str(folder)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | ascii_, check=True)
    run = Run.read(folder)
    assert run.info["note"] == "一" and [each["text"] for each in run.samples()] == ["ünï\u2028\n", "一"]
