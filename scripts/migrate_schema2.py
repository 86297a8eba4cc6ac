"""Bring a collection of schema 1 to schema 2:  python -m scripts.migrate_schema2 OLD NEW

Every run is filed under its new identity, with what schema 1 did not record: the step that committed each
position, batches, prompt lengths, and the machine and commit of every sample. The prompts and weights must be
those of this checkout (checked by hash). Answers of decoders that commit from the left are taken over as they
are. Where the order is unknown (confidence, entropy, random), documents are decoded again and must give the
recorded ids. Runs whose steps a corrected rule changes (APD's first token, Dream's schedule) are left out and
named: decode them anew. `--replay 20` then decodes the first 20 documents of each run again.

Kept until the next schema.
"""

import unmask  # noqa: F401, I001  (first: it quiets the libraries below)

import argparse
import hashlib
import json
import sys
from pathlib import Path

from unmask.cli import progress_bar, refusals
from unmask.config import ROOT
from unmask.evaluation import Evaluation
from unmask.records import Run
from unmask.records.files import read_jsonl

BATCH = 16  # documents decoded together: their answers do not depend on it
LEFT = {"LeftRight", "Autoregressive"}
ROLES = {"autoregressive": "target"}  # old name -> new
RANKED = {"Confidence": "confidence", "Entropy": "entropy", "Margin": "margin", "RandomOrder": "random"}


def fingerprint_of_schema_1(folder: Path) -> str:
    """Schema 1's hash of a model folder: names, sizes and the ends of the files."""
    digest = hashlib.sha256()
    for file in sorted(f for kind in ("*.safetensors", "*.bin", "config.json") for f in folder.glob(kind)):
        digest.update(f"{file.name} {file.stat().st_size}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(2**24))
            stream.seek(max(0, file.stat().st_size - 2**24))
            digest.update(stream.read())
    return digest.hexdigest()[:12]


def settings_of(old: dict) -> list[str] | None:
    """The overrides of eval.py that give an old run's setting today; None where a corrected rule changes
    it."""
    decoder, model = old["decoder"], old["model"]["name"]
    kind = decoder["_target_"].rpartition(".")[2]
    found = [f"model={model}", f"task={old['task']['name']}", f"task.budget={old['task']['budget']}"]
    found += [f"seed={old['seed']}", f"batch_size={old['batch_size']}", f"dtype={old['dtype']}", "device=cpu"]
    found += [f"threads={old['device'].split(', ')[1].split()[0]}"]
    for key in ("temperature", "top_p", "top_k"):
        found.append(f"decoder.{key}={'null' if decoder.get(key) is None else decoder[key]}")
    if kind == "Autoregressive":
        return [*found, "decoder=autoregressive"]
    if kind == "LeftRight":
        window, lookahead = decoder["kv_window"], decoder["max_lookahead"]
        return [
            *found,
            "decoder=leftright",
            f"decoder.tokens_per_step={decoder['tokens_per_step']}",
            f"decoder.kv_window={'null' if window is None else window + 1}",  # counted as published now
            f"decoder.max_lookahead={'null' if lookahead is None else lookahead}",
        ]
    if kind in RANKED and old["model"]["name"] != "tiny_dream":  # Dream's schedule is its own now
        steps, block = (decoder[key] for key in ("steps", "block_length"))
        return [
            *found,
            f"decoder={RANKED[kind]}",
            "decoder.quota=even",
            f"decoder.steps={'null' if steps is None else steps}",
            f"decoder.block_length={'null' if block is None else block}",
        ]
    return None


def samples_of(folder: Path) -> list[dict]:
    """The samples of a run of schema 1."""
    return sorted(read_jsonl(folder / "samples.jsonl")[0], key=lambda sample: sample["doc_id"])


def renamed(sample: dict) -> dict:
    """A sample of schema 1 with today's names of roles, and without its steps."""
    roles = {key: {ROLES.get(r, r): n for r, n in sample[key].items()} for key in ("forwards", "positions")}
    return {key: value for key, value in sample.items() if key != "steps"} | roles


def check_same(name: str, old: dict, new: dict) -> None:
    """ValueError unless two samples of a document have the same ids and forwards."""
    for key in ("ids", "forwards", "positions", "useful"):
        if old[key] != new[key]:
            raise ValueError(
                f"{name}, document {old['doc_id']}: {key} differ: {old[key]} recorded, {new[key]} now"
            )


def migrate(folder: Path, output: Path) -> Path | None:
    """File one old run under `output`; returns its new folder, or None where it must be decoded anew."""
    info = json.loads((folder / "run.json").read_text())
    old = info["config"]
    overrides = settings_of(old)
    if overrides is None:
        return None
    samples = samples_of(folder)
    limit = max(sample["doc_id"] for sample in samples) + 1
    evaluation = Evaluation.of(*overrides, f"results={output}", f"limit={limit}", "warm_up=0")
    if evaluation.prompts_hash != old["task"]["prompts"]:
        raise ValueError(f"{folder}: its prompts are not those of this checkout")
    for source in evaluation.sources.values():
        if fingerprint_of_schema_1(Path(source.place)) != old["model"]["weights"]:
            raise ValueError(f"{folder}: its weights are not those of checkpoints/{source.settings.name}")
    by_document = {evaluation.lm.key(request)[0]: request for request in evaluation.requests}
    commit = info["git_commit"][:12] + ("+" if info["git_dirty"] else "")
    stamp = {
        "commit": commit,
        "machine": f"{info['cpu']}, {info['cores']} cores",
        "exact": None,
        "turns": None,
    }
    from_left = old["decoder"]["_target_"].rpartition(".")[2] in LEFT
    with evaluation.run as run:
        run.claim()
        todo = [sample for sample in samples if (sample["doc_id"], 0) not in run.done]
        for start in range(0, len(todo), BATCH):
            batch = todo[start : start + BATCH]
            requests = [by_document[sample["doc_id"]] for sample in batch]
            prompts = evaluation.lm.prompts(requests)
            again = [None] * len(batch) if from_left else evaluation.lm.decode(requests, prompts)
            for sample, prompt, replayed in zip(batch, prompts, again, strict=True):
                new = renamed(sample) | stamp | {"prompt_length": len(prompt), "batch": len(run.done)}
                if from_left:
                    new["commits"] = [step for step, n in enumerate(sample["steps"]) for _ in range(n)]
                else:
                    check_same(str(folder), new, replayed)
                    new["commits"] = replayed["commits"]
                run.append(new)
        summary = evaluation.score()
        circumstances = ("git_commit", "git_dirty", "packages", "platform", "cpu", "cores", "time")
        run.update(**{key: info[key] for key in circumstances}, migrated_from=folder.name)
    if abs(summary["accuracy"] - info["summary"]["accuracy"]) > 1e-9:
        raise ValueError(
            f"{folder}: accuracy {info['summary']['accuracy']} recorded, {summary['accuracy']} now"
        )
    return evaluation.folder


def replay(folder: Path, documents: int) -> int:
    """Decode the first documents of a greedy run again; returns how many had the same ids and forwards."""
    run = Run.read(folder)
    config = run.config
    overrides = [f"model={config['models'][config['roles'][0]]['name']}", f"task={config['task']['name']}"]
    overrides += [
        f"decoder={config['decoder']['name']}",
        "warm_up=0",
        f"task.budget={config['task']['budget']}",
    ]
    for key, value in config["decoder"].items():
        if key not in ("name", "rank"):
            overrides.append(f"decoder.{key}={'null' if value is None else value}")
    evaluation = Evaluation.of(*overrides, f"run_folder={folder}.replay")
    recorded = {sample["doc_id"]: sample for sample in run.samples()}
    requests = [r for r in evaluation.requests if evaluation.lm.key(r)[0] in recorded][:documents]
    for start in range(0, len(requests), BATCH):
        batch = requests[start : start + BATCH]
        for new in evaluation.lm.decode(batch, evaluation.lm.prompts(batch)):
            check_same(folder.name, recorded[new["doc_id"]], new)
            if recorded[new["doc_id"]]["commits"] != new["commits"]:
                raise ValueError(f"{folder.name}, document {new['doc_id']}: commits differ")
    return len(requests)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.migrate_schema2", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("old", type=Path, help="a collection of schema 1")
    parser.add_argument("new", type=Path, help="the folder that gets the runs of schema 2")
    parser.add_argument("--replay", type=int, default=0, help="documents of each run to decode again")
    options = parser.parse_args()
    with refusals():
        old, new = (
            folder if folder.is_absolute() else ROOT / folder for folder in (options.old, options.new)
        )
        folders = sorted(path.parent for path in old.glob("*/run.json"))
        if not folders:
            raise ValueError(f"{options.old}: holds no runs")
        with progress_bar() as bar:
            for folder in bar.track(folders, description="migrating"):
                if migrate(folder, new) is None:
                    print(f"left out, decode it anew: {folder.name}", file=sys.stderr)
        if options.replay:
            made = sorted(path.parent for path in new.glob("*/run.json"))
            with progress_bar() as bar:
                count = sum(replay(f, options.replay) for f in bar.track(made, description="replaying"))
            print(
                f"{count} documents of {len(made)} runs decoded again: same ids, forwards, positions, commits"
            )


if __name__ == "__main__":
    main()
