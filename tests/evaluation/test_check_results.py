"""report.py check: a folder as it was made stands, and each kind of forgery is named."""

import json
import re
import shutil

import eval as eval_door
import report
from unmask.records import find_runs
from unmask.records.files import sealed
from unmask.records.identity import config_hash
from unmask.report.checking import Expected, lines, turns_of


def rewrite(file, change):
    """Every line of a file changed and sealed again; one that becomes None is left out."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [change({key: value for key, value in row.items() if key != "checksum"}) for row in rows]
    of = json.loads((file.parent / "run.json").read_text())["config_hash"]
    file.write_text("".join(json.dumps(sealed(row, of)) + "\n" for row in rows if row))


def of_first_document(**changes):
    return lambda row: row | (changes if row["doc_id"] == row_of_first["doc_id"] else {})


row_of_first: dict = {}


def resealed(file, **changes):
    info = json.loads(file.read_text())
    info = {key: value for key, value in info.items() if key != "checksum"} | changes
    info["config_hash"] = config_hash(info["config"])
    file.write_text(json.dumps(sealed(info)))
    for rows in ("samples.jsonl", "scores.jsonl"):  # which the config's hash seals
        rewrite(file.parent / rows, lambda row: row)


def with_other_prompts(run):
    info = json.loads((run / "run.json").read_text())
    task = info["config"]["task"] | {"prompts": "0" * 12}
    resealed(run / "run.json", config=info["config"] | {"task": task})
    rewrite(run / "samples.jsonl", of_first_document(prompt_hash="0" * 12))


def with_other_weights(run):
    config = json.loads((run / "run.json").read_text())["config"]
    config["models"]["denoiser"]["weights"] = "0" * 12
    resealed(run / "run.json", config=config)


def without_a_document(run):
    for file in ("samples.jsonl", "scores.jsonl"):
        rewrite(run / file, lambda row: None if row["doc_id"] == row_of_first["doc_id"] else row)


def one_less(row):
    return row | {"useful": row["useful"] - 1, "finish": "stop"}


def in_samples(change):
    return lambda run: rewrite(run / "samples.jsonl", change)


FORGERIES = {  # how the second run is changed, and what is said of it
    "an answer edited": (in_samples(of_first_document(text="#### 7")), "tokens: document .* its text is not"),
    "a score changed": (
        lambda run: rewrite(run / "scores.jsonl", of_first_document(correct=1.0)),
        "answers: document .* correct is 1.0 there, 0.0 here",
    ),
    "tokens counted wrong": (in_samples(one_less), "tokens: document .* useful .*, counted "),
    "other documents": (with_other_prompts, "documents: the prompts of the whole task are others; document"),
    "a document left out": (without_a_document, "documents: no limit draws just these documents"),
    "other weights": (with_other_weights, "models: tiny_dream: weights is 000000000000 there"),
    "times alone": (in_samples(lambda row: row | {"session": None}), "times: answered alone"),
    "times in turns with nobody": (
        in_samples(lambda row: row | {"session": "deadbeef"}),
        "times: nobody else answered in session deadbeef",
    ),
    "times of two machines": (in_samples(lambda row: row | {"machine": "other"}), "times: .* of 2 machines"),
}


def test_a_good_folder_stands_and_forgeries_are_named(run_command, models, tmp_path):
    words = ["decoder=leftright", "decoder.tokens_per_step=2,4", "interleave=true", "limit=4", "warm_up=0"]
    code, _, err = run_command(eval_door, *words, *models, f"results={tmp_path / 'good'}")
    assert code == 0, err
    path = next(word for word in models if word.startswith("model.path"))

    def checked(folder):
        return run_command(report, "check", str(tmp_path / folder), path)

    code, out, err = checked("good")
    assert code == 0, out + err
    assert "2 of 2 runs stand in everything" in out and "DOES NOT" not in out
    assert len(json.loads(out.splitlines()[-1])["stand"]) == 2
    here = Expected(find_runs(tmp_path / "good")[0][0].config, [path])
    for name, (forge, said) in FORGERIES.items():
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        run = max(tmp_path.glob("bad/*/run.json")).parent
        row_of_first.update(json.loads((run / "samples.jsonl").read_text().splitlines()[0]))
        forge(run)
        runs, _ = find_runs(tmp_path / "bad")
        (forged,) = (each for each in runs if each.folder == run)
        found = [
            f"{line.what}: {line.why}"
            for line in lines(forged, turns_of(runs), lambda _: here, [])
            if not line.stands
        ]
        follow = name == "an answer edited"  # its score is no longer that of its text
        assert len(found) == 1 + follow and re.search(said, found[0]), (name, found)
    text = (run / "samples.jsonl").read_text()
    (run / "samples.jsonl").write_text(text.replace('"useful": ', '"useful":  1', 1))
    code, out, _ = checked("bad")
    assert code == 1 and re.search(r"\(cannot be read\)\n  DOES NOT STAND  files: .*checksum", out)
    assert "0 of 2 runs" in out  # the other one took turns with it
    code, _, err = run_command(report, "check", str(tmp_path / "nothing"))
    assert code == 2 and "is no folder of runs" in err
