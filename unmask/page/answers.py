"""Answers as the page replays them, from samples and, where there are any, traces."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from unmask.page.pieces import Decode, decode_of, pieces
from unmask.records.sample import committed
from unmask.records.trace import Trace, agrees
from unmask.report.trace import Trace as Drawn

DOCUMENTS = 12  # of each task, whose answers the page replays

Traces = Mapping[tuple[int, int], Trace]  # of a run, by document and repeat


def answers_of(
    scored: Sequence[dict],
    config: Mapping,
    documents: Collection[int],
    traces: Traces,
    vocabulary: dict[str, int],
) -> dict[int, dict]:
    """The first answer of a run to each of these documents, see `answer` and `told_by`."""
    decode = decode_of(config, scored[0])
    found = {}
    for sample in scored:
        if sample["doc_id"] in documents and sample["repeat"] == 0:
            mine = answer(sample, decode, vocabulary)
            trace = traces.get((sample["doc_id"], 0))
            found[sample["doc_id"]] = mine | told_by(trace, sample, config, decode)
    return found


def answer(sample: Mapping, decode: Decode | None, vocabulary: dict[str, int]) -> dict:
    """An answer up to its end, as the page replays it.

    tokens: numbers of pieces, which `vocabulary` collects. steps: the step that committed each. taken: how
    many each step committed, those after the end included. after: how many stand after the end. lost, if the
    decoder revises: of tokens that were taken back, [position, piece, step, step that took it back]. The rest
    is of `sample`.
    """
    stop = sample["useful"] + (sample["finish"] == "stop")  # with the end token
    texts = pieces(sample["ids"][:stop], decode)
    lost = [entry for entry in sample.get("lost", ()) if entry[0] < stop]
    revised = {"lost": [[p, number(vocabulary, token, decode), *steps] for p, token, *steps in lost]}
    return (revised if "lost" in sample else {}) | {
        "tokens": [vocabulary.setdefault(text, len(vocabulary)) for text in texts],
        "steps": [step for step in sample["commits"] if step >= 0][:stop],
        "taken": committed(sample),
        "after": len(sample["ids"]) - stop,
        "useful": sample["useful"],
        "ended": sample["finish"] == "stop",
        "correct": sample["correct"],
        "answer": sample["extracted"],
        "forwards": sample["forwards"],
    }


def number(vocabulary: dict[str, int], token: int, decode: Decode | None) -> int:
    """Of the piece of a token on its own."""
    (text,) = pieces([token], decode)
    return vocabulary.setdefault(text, len(vocabulary))


def told_by(trace: Trace | None, sample: Mapping, config: Mapping, decode: Decode | None) -> dict:
    """What a trace adds to an `answer`, if it is of this very one.

    spent: role -> forwards up to each step. Per step, where the decoder has them: blocks, the states of its
    blocks; drafts, (drafted, accepted); own, the last token is the target's own; refused, the text of the
    drafted tokens that were not accepted.
    """
    if trace is None or not agrees(trace, sample):
        return {}
    found: dict = {"spent": trace["forwards"]}
    if any(trace["blocks"]):
        found["blocks"] = trace["blocks"]
    if any(trace["drafted"]):
        steps = list(zip(trace["drafted"], trace["accepted"], strict=True))
        found["own"] = "drafter" in config["roles"]
        found["drafts"] = [(len(drafted), accepted) for drafted, accepted in steps]
        found["refused"] = ["".join(pieces(drafted[accepted:], decode)) for drafted, accepted in steps]
    return found


def replay(sample: Mapping, config: Mapping, title: str) -> Drawn:
    """An answer up to its end, as `report.trace` draws it; its footer says whether it is right."""
    found = answer(sample, decode_of(config, sample), texts := {})
    trace = Drawn(title, [list(texts)[piece] for piece in found["tokens"]], steps=len(found["taken"]))
    trace.step_of = found["steps"]
    trace.footer = {None: "not scored", 1: "right", 0: "wrong"}.get(found["correct"], "right in part")
    return trace


def telling(documents: Sequence[Mapping], runs: Sequence[Sequence[dict]]) -> int | None:
    """Of `documents_of`, the document to begin with: one that every run but the last has right, if there is
    one; rather with its question than without."""
    right = [{sample["doc_id"]: sample["correct"] for sample in run if not sample["repeat"]} for run in runs]
    wanted = [1] * (len(runs) - 1) + [0]

    def worth(document: Mapping) -> tuple[bool, bool]:
        tells = [answers.get(document["id"]) for answers in right] == wanted
        return tells, document["question"] is not None

    return max(documents, key=worth)["id"] if documents else None


def documents_of(runs: Sequence[Sequence[dict]], traces: Sequence[Traces]) -> list[dict]:
    """The documents that most runs have, the first ones of these: numbers, wanted answers, questions.

    A question is None where no run has a trace of its document.
    """
    counts = Counter(sample["doc_id"] for scored in runs for sample in scored if not sample["repeat"])
    chosen = sorted(counts, key=lambda document: (-counts[document], document))[:DOCUMENTS]
    targets = {sample["doc_id"]: sample["target"] for scored in runs for sample in scored}
    questions = {key[0]: trace["question"] for each in traces for key, trace in each.items()}
    return [
        {"id": document, "target": targets[document], "question": questions.get(document)}
        for document in sorted(chosen)
    ]
