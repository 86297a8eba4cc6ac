"""From a configuration to a scored record: resume, identity, batches, accounting, integrity."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from unmask.decoding import Stop
from unmask.evaluation.lm import text_stop
from unmask.evaluation.recorded_lm import ForwardCounter
from unmask.evaluation.several import distinct, take_turns
from unmask.records import Run
from unmask.records.trace import TRACES, agrees, read_traces

DECODERS = ["apd", "leftright", "confidence", "margin", "entropy", "random"]


def rows(evaluation):
    return [(s["doc_id"], s["ids"], s["commits"], s["forwards"]) for s in evaluation.run.samples()]


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_evaluates_end_to_end(evaluate, decoder):
    evaluation = evaluate(f"decoder={decoder}", "limit=3", "decoder.temperature=0.5")
    summary = evaluation.score()
    assert summary["n"] == 3 and evaluation.lm.decoded == 3
    assert summary["useful_tokens"] <= 3 * 24
    assert evaluation.headline(summary)["forwards"] == summary["forwards"]
    assert evaluation.run.info["status"] == "finished"
    json.dumps(evaluation.headline(summary), allow_nan=False)


def test_the_autoregressive_baseline_runs_on_a_causal_model(evaluate, models):
    path = next(o for o in models if o.startswith("auxiliary.path")).partition("=")[2]
    evaluation = evaluate("model=tiny_qwen", f"model.path={path}", "decoder=autoregressive", "limit=2")
    assert evaluation.score()["forwards"].keys() == {"target"}


def test_interrupted_run_finishes_exactly_the_missing_documents(evaluate, tmp_path):
    whole = evaluate("limit=5", f"run_folder={tmp_path / 'whole'}")
    whole.score()
    part = evaluate("limit=5")
    part.lm.generate(part.requests[:2])
    part.run.close()  # what a kill does to the lock; the lines are on disk
    rest = evaluate("limit=5")
    assert len(rest.missing) == 3
    rest.score()
    assert rest.lm.decoded == 3
    assert rows(rest) == rows(whole)


def test_finished_run_decodes_nothing_and_loads_no_model(evaluate):
    first = evaluate("limit=3")
    summary = first.score()
    first.run.close()
    again = evaluate("limit=3")
    again.load = lambda: pytest.fail("a finished run must not load models")
    assert again.score() == summary
    assert again.lm.decoded == 0


def test_a_trace_tells_the_steps_of_the_recorded_answers(evaluate):
    first = evaluate("limit=3")
    first.score()
    first.run.close()
    times = [sample["seconds"] for sample in first.run.samples()]
    traced = evaluate("limit=3", "trace=true")
    traced.score()
    assert traced.lm.decoded == 0 and [sample["seconds"] for sample in traced.run.samples()] == times
    found = read_traces(traced.run.folder, traced.run.seal)
    assert len(found) == 3
    for sample in traced.run.samples():
        trace = found[sample["doc_id"], 0]
        assert agrees(trace, sample) and trace["question"]
        assert len(trace["drafted"]) == sample["forwards"]["denoiser"] == trace["forwards"]["denoiser"][-1]
        assert sum(map(len, trace["drafted"])) >= len(sample["ids"]) == sum(trace["accepted"])
    traced.run.close()
    before = (traced.run.folder / TRACES).read_bytes()
    again = evaluate("limit=3", "trace=true")
    again.load = lambda: pytest.fail("a traced run must not load models")
    again.score()
    assert (again.run.folder / TRACES).read_bytes() == before
    (again.run.folder / TRACES).write_bytes(before.replace(b"denoiser", b"denoised", 1))
    with pytest.raises(ValueError, match=r"trace\.jsonl:1: does not match its checksum.*Delete the file"):
        read_traces(again.run.folder, again.run.seal)


def test_larger_limit_extends_the_same_run(evaluate):
    small = evaluate("limit=2")
    small.score()
    small.run.close()
    large = evaluate("limit=4")
    assert large.score()["n"] == 4 and large.lm.decoded == 2
    large.run.close()
    small_again = evaluate("limit=2")
    assert small_again.score()["n"] == 2  # a summary is of the documents asked for


def test_smaller_limit_after_an_interruption_is_scored(evaluate):
    large = evaluate("limit=4")
    large.lm.generate(large.requests[:3])
    large.run.close()
    assert evaluate("limit=2").score()["n"] == 2


def test_a_document_that_holds_the_mask_is_named_before_anything_is_decoded(evaluate):
    evaluation = evaluate("limit=2")
    lm, requests = evaluation.lm, evaluation.requests
    lm.mask_id = lm.prompts(requests)[1][0].item()
    with pytest.raises(ValueError, match=r"document \d+ of .*holds the mask's id"):
        lm.generate(requests)
    assert lm.decoded == 0 and "models" not in vars(lm)


def test_looking_at_a_finished_run_or_being_refused_writes_nothing(evaluate):
    first = evaluate("limit=2")
    first.score()
    first.run.close()
    before = {f.name: f.read_bytes() for f in first.folder.iterdir()}
    with pytest.raises(ValueError, match="context"):
        evaluate("limit=2", "task.max_new_tokens=500", f"run_folder={first.folder}")
    evaluate("limit=2")
    assert {f.name: f.read_bytes() for f in first.folder.iterdir()} == before


def test_another_prompt_is_another_run_and_another_metric_is_not(evaluate):
    first = evaluate("limit=1")
    first.score()
    first.run.close()
    again = evaluate("limit=1", "task.metric='exact_match,strict-match'")
    assert not again.missing and again.score()["n"] == 1
    with pytest.raises(ValueError, match="prompts"):
        evaluate("limit=1", "task.system_prompt=Be brief.")


def test_accuracy_of_a_group_is_the_unweighted_mean_of_its_tasks(evaluate, tmp_path):
    """Algebra has two problems, the others one: right in one of two there, and in one other subject."""
    subjects = ["Algebra", "Algebra", "Geometry", "Number Theory", "Prealgebra", "Precalculus"]
    subjects += ["Intermediate Algebra", "Counting & Probability"]
    rows = [{"problem": "1+1?", "solution": r"\boxed{2}", "type": subject} for subject in subjects]
    (tmp_path / "math.json").write_text(json.dumps(rows))
    evaluation = evaluate(
        "task=math", f"task.data={tmp_path / 'math.json'}", "task.max_new_tokens=4", "warm_up=0"
    )
    decode = evaluation.lm.decode
    right = iter([True, False, True, False, False, False, False, False])

    def answer(requests, prompts):
        return [s | {"text": r"\boxed{2}" if next(right) else "no"} for s in decode(requests, prompts)]

    evaluation.lm.decode = answer
    summary = evaluation.score()
    assert summary["n"] == 8 and len(summary["accuracy_per_task"]) == 7
    assert summary["accuracy"] == pytest.approx((1 / 2 + 1) / 7)  # pooled it would be 2 of 8
    assert evaluation.headline(summary)["accuracy"] == summary["accuracy"]


def test_an_answer_that_is_right_counts_as_right(evaluate, every_problem):
    """From the ids of an answer to `correct: 1`, through lm-eval's filter and score."""
    evaluation = evaluate("limit=3", "warm_up=0")
    targets = [str(request.doc["answer"]) for request in evaluation.requests]
    decode, written = evaluation.lm.decode, iter([f"so it is\n#### {targets[0]}", "#### none", targets[2]])

    def answer(requests, prompts):
        samples = decode(requests, prompts)
        for sample in samples:
            ids = evaluation.lm.tok_encode(next(written))
            sample |= {"ids": ids, "useful": len(ids), "finish": "length", "commits": [0] * len(ids)}
            sample["text"] = evaluation.lm.tokenizer.decode(ids)
        return samples

    evaluation.lm.decode = answer
    assert evaluation.score()["accuracy"] == pytest.approx(2 / 3)
    assert [s["correct"] for s in evaluation.scored] == [1, 0, 1]
    assert evaluation.summary["extraction_failures"] == 1
    strict = evaluation.run.scored("exact_match,strict-match")
    assert [s["correct"] for s in strict] == [1, 0, 0]


def test_other_settings_are_another_run(evaluate):
    evaluate("limit=1").score()
    with pytest.raises(ValueError, match=r"mixture_weight.*0\.7 there, 0\.5 here"):
        evaluate("limit=1", "decoder.mixture_weight=0.5")


@pytest.mark.parametrize("decoder", DECODERS)
def test_batch_size_does_not_change_an_answer(evaluate, tmp_path, decoder):
    one = evaluate(f"decoder={decoder}", "limit=5", f"run_folder={tmp_path / 'one'}")
    four = evaluate(f"decoder={decoder}", "limit=5", "batch_size=4", f"run_folder={tmp_path / 'four'}")
    one.score(), four.score()
    assert rows(one) == rows(four)


def test_seed_decides_the_noise(evaluate, tmp_path):
    runs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        evaluation = evaluate(
            "limit=3", f"seed={seed}", "decoder.temperature=1", f"run_folder={tmp_path / name}"
        )
        evaluation.score()
        runs.append(rows(evaluation))
    assert runs[0] == runs[1] != runs[2]


def test_a_decoder_that_changes_its_mind_fails_the_run(evaluate):
    evaluation = evaluate("limit=2", "decoder.temperature=1")
    decode, seeds = evaluation.lm.decode, iter(range(100))

    def drifting(requests, prompts):
        evaluation.lm.seed = next(seeds)
        return decode(requests, prompts)

    evaluation.lm.decode = drifting
    with pytest.raises(AssertionError, match="decoded twice"):
        evaluation.score()


def test_forwards_that_are_not_claimed_fail_the_run(evaluate):
    evaluation = evaluate("limit=1")
    decode = evaluation.lm.decode

    def modest(requests, prompts):
        samples = decode(requests, prompts)
        samples[0]["forwards"]["denoiser"] -= 1
        return samples

    evaluation.lm.decode = modest
    with pytest.raises(AssertionError, match="were claimed"):
        evaluation.score()
    assert not evaluation.run.done  # found in the warm-up, before anything is recorded


def test_forward_counter_counts_rows(evaluate):
    evaluation = evaluate("limit=3", "decoder=leftright", "batch_size=3")
    with ForwardCounter(evaluation.lm.models) as seen:
        samples = evaluation.lm.decode(evaluation.requests, evaluation.lm.prompts(evaluation.requests))
    assert seen.rows == {"denoiser": sum(s["forwards"]["denoiser"] for s in samples)}


def test_forwards_of_one_role_do_not_pass_for_anothers(evaluate):
    evaluation = evaluate("limit=1", "decoder=apd")
    decode = evaluation.lm.decode

    def swapped(requests, prompts):
        samples = decode(requests, prompts)
        samples[0]["forwards"]["denoiser"] -= 1
        samples[0]["forwards"]["auxiliary"] += 1
        return samples

    evaluation.lm.decode = swapped
    with pytest.raises(AssertionError, match="were claimed"):
        evaluation.score()


def test_samples_say_with_whom_they_took_turns(evaluate, tmp_path):
    def arms(*overrides):
        pair = [
            evaluate("limit=3", f"decoder={name}", f"run_folder={tmp_path / name}", *overrides)
            for name in ("leftright", "confidence")
        ]
        take_turns(pair, lambda: None)
        for arm in pair:
            arm.run.close()
        return [[sample["session"] for sample in arm.run.samples()] for arm in pair]

    first, second = arms()
    assert len(set(first)) == 1 and first == second and first[0] is not None
    longer, _ = arms("limit=4")
    assert len(longer) == 4 and Counter(longer)[first[0]] == 3  # the fourth is of another session
    assert None not in longer
    alone = evaluate("limit=2")
    alone.score()
    assert [sample["session"] for sample in alone.run.samples()] == [None, None]


def test_prompt_is_the_chat_template_with_the_system_prompt(evaluate):
    evaluation = evaluate("limit=1", "task.system_prompt=Be brief.")
    text = evaluation.requests[0].args[0]
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert text.endswith("<|im_start|>assistant\n")


class Letters:
    """A tokenizer of one token per entry."""

    tokens = ("ab", "c", "STOP", "xST", "OPy", " ")

    def decode(self, ids):
        return "".join(self.tokens[i] for i in ids)


@pytest.mark.parametrize(
    "ids, useful",
    [
        ([0, 1, 0], None),
        ([0, 1, 2, 0], 2),  # the stop string is a token
        ([0, 3, 4, 1], 1),  # it starts inside a token: cut before that token
        ([2], 0),
        ([0, 9, 2], 1),  # a stop id comes first
        ([0, 2, 9], 1),  # the stop string comes first
    ],
)
def test_stop_strings_cut_on_ids(ids, useful):
    stop = text_stop([9], ["STOP", ""], Letters())
    assert stop.cut(ids) == useful
    ends = (stop.cut(ids[: n + 1], n) for n in range(len(ids)))  # one token a step, until it ends
    assert next((end for end in ends if end is not None), None) == useful


def test_a_step_decodes_the_end_of_a_long_answer_alone():
    asked = []

    class Counting(Letters):
        def decode(self, ids):
            asked.append(len(ids))
            return super().decode(ids)

    stop = text_stop([9], ["STOP"], Counting())
    assert stop.cut([0] * 1000, 999) is None
    assert sum(asked) < 20


def test_without_stop_strings_text_is_never_decoded():
    assert text_stop([9], [], None) == Stop(frozenset([9]))


def test_record_has_what_a_reader_needs(evaluate):
    evaluation = evaluate("limit=1")
    evaluation.score()
    run = Run.read(evaluation.folder)
    assert run.config["task"]["prompts"] and run.config["models"]["denoiser"]["weights"]
    assert run.info["packages"]["lm-eval"] and run.config["threads"] == 1
    sample = run.scored(evaluation.cfg.task.metric)[0]
    assert {"text", "ids", "commits", "correct", "extracted", "target", "extraction_failed"} <= sample.keys()


def test_a_seeded_subset_keeps_the_numbers_of_its_documents(evaluate, every_problem):
    """A limit with a seed takes documents from anywhere; each is recorded and scored as itself."""
    evaluation = evaluate("limit=3", "task.subset_seed=3", "warm_up=0")
    wanted = [request.doc_id for request in evaluation.requests]
    assert len(set(wanted)) == 3 and wanted != sorted(wanted) and max(wanted) > 3
    evaluation.score()
    assert {s["doc_id"]: s["target"] for s in evaluation.scored} == {
        request.doc_id: str(request.doc["answer"]) for request in evaluation.requests
    }
    evaluation.run.close()
    larger = evaluate("limit=5", "task.subset_seed=3", "warm_up=0")
    assert [r.doc_id for r in larger.requests][:3] == wanted and len(larger.missing) == 2


def test_answers_of_a_lossless_decoder_are_checked_in_the_run(evaluate, models, monkeypatch):
    from unmask.decoding.autoregressive import Autoregressive

    path = next(o for o in models if o.startswith("auxiliary.path")).partition("=")[2]
    causal = ("model=tiny_qwen", f"model.path={path}", "decoder=transformers", "batch_size=2", "limit=3")
    evaluation = evaluate(*causal)
    summary = evaluation.score()
    assert [s["exact"] for s in evaluation.run.samples()] == [True] * 3
    assert summary["exact"] == [3, 3]
    evaluation.run.close()
    decode = Autoregressive.decode

    def other(self, *arguments):
        found = decode(self, *arguments)
        found[0].ids[0] += 1
        return found

    monkeypatch.setattr(Autoregressive, "decode", other)
    with pytest.raises(
        AssertionError, match=r"claims to be lossless, but document \d+ differs .* at token 0"
    ):
        evaluate(*causal[:-1], "limit=4").score()


def test_of_settings_with_one_run_the_one_that_takes_turns_stays():
    def setting(folder, interleave):
        return SimpleNamespace(folder=folder, cfg=SimpleNamespace(interleave=interleave))

    alone, in_turns, other = setting("a", False), setting("a", True), setting("b", False)
    for order in ([alone, in_turns, other], [in_turns, other, alone]):
        assert set(map(id, distinct(order))) == {id(in_turns), id(other)}
