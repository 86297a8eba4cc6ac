"""Where batches come from: problems, drills and runs, as a function of a position."""

import hashlib
import json
import random

import pytest

from unmask.evaluation.prompts import prompt_ids, prompt_text
from unmask.records import Run
from unmask.records.identity import prompt_hash
from unmask.tasks import problems
from unmask.training import checking, recipe
from unmask.training.data import Stream
from unmask.training.sources import Answers, Drills, Problems, source

MIXTURE = {"gsm_symbolic": 0.5, "chain_sum": 0.2, "drill": 0.3}


def digest(stream, batches):
    found = hashlib.sha256()
    for _ in range(batches):
        batch = stream.next(0.3)
        for tensor in vars(batch).values():
            found.update(str(tensor.int().tolist()).encode())
    return found.hexdigest()[:16]


def test_the_stream_is_batch_for_batch_the_one_that_trained_the_shipped_models(tokenizer):
    stream = Stream(tokenizer, MIXTURE, 3000, 0, {"gsm_symbolic": 1.0}, 96)
    assert digest(stream, 5) == "224a07f94c40660b"


def test_a_stream_goes_on_from_its_position(tokenizer, small_chunks):
    straight = Stream(tokenizer, MIXTURE, 2000, canvas=96)
    batches = [straight.next(0.0).ids.tolist() for _ in range(12)]
    first = Stream(tokenizer, MIXTURE, 2000, canvas=96)
    for _ in range(7):
        first.next(0.0)
    assert first.position[0] > 0  # in a later chunk
    second = Stream(tokenizer, MIXTURE, 2000, canvas=96, position=first.position, shares=first.shares)
    assert [second.next(0.0).ids.tolist() for _ in range(5)] == batches[7:]


def test_answers_are_what_is_asked_for(tokenizer, small_chunks):
    stream = Stream(tokenizer, {"gsm_symbolic": 1.0}, batch_tokens=2000)
    for _ in range(3):
        batch = stream.next()
        assert batch.ids.shape == batch.answer.shape and batch.tokens <= 2000
        for ids, answer in zip(batch.ids, batch.answer, strict=True):
            text = tokenizer.decode(ids[answer])
            assert "#### " in text and text.endswith("<|im_end|>")
            assert tokenizer.decode(ids[~answer]).startswith("<|im_start|>user\n")


def test_frequent_ids_are_those_of_the_answers(tokenizer, small_chunks):
    stream = Stream(tokenizer, {"drill": 1.0}, batch_tokens=500)
    found = stream.frequent(200)
    assert set(tokenizer.decode(found[:12])) == set("0123456789 \n")
    assert len(found) == len(set(found)) == 200  # answers have fewer: the first ids of the vocabulary follow
    assert found[:5] == stream.frequent(5) and stream.position == (0, 0)


def test_drills_ask_for_results_only(tokenizer, small_chunks):
    batch = Stream(tokenizer, {"drill": 1.0}, batch_tokens=500).next()
    for ids, answer in zip(batch.ids, batch.answer, strict=True):
        assert "=" not in tokenizer.decode(ids[answer]) and "=" in tokenizer.decode(ids[~answer])


def test_answers_are_followed_by_end_padding_up_to_the_canvas(tokenizer, small_chunks):
    stream = Stream(tokenizer, {"gsm_symbolic": 0.7, "drill": 0.3}, batch_tokens=3000, canvas=96)
    lengths = []
    for _ in range(20):
        batch = stream.next()
        assert (batch.ids[batch.end_padding] == tokenizer.eos_token_id).all()
        assert not (batch.end_padding & batch.answer).any()
        for answer, padding in zip(batch.answer, batch.end_padding, strict=True):
            if padding.any():
                columns = (answer | padding).nonzero()[:, 0]
                # one stretch, up to the end
                assert columns.tolist() == list(range(columns[0], batch.ids.size(1)))
                lengths.append(len(columns))
    assert sum(n >= 96 for n in lengths) > 0.4 * len(lengths)
    assert sum(n < 90 for n in lengths) > 0.1 * len(lengths)


def test_mixture_moves_with_progress(tokenizer, small_chunks):
    def drills(progress):
        mixture = {"gsm_symbolic": 0.1, "drill": 0.9}
        stream = Stream(tokenizer, mixture, 2000, final_mixture={"gsm_symbolic": 1.0})
        rows = [ids for _ in range(20) for ids in stream.next(progress).ids]
        return sum("user" not in tokenizer.decode(ids) for ids in rows) / len(rows)

    assert drills(0.0) > 0.7 and drills(1.0) == 0


@pytest.mark.parametrize("name", ["gsm_symbolic", "chain_sum", "drill"])
def test_a_source_is_a_function_of_chunk_and_generator(name, tokenizer, small_chunks):
    def first(chunk, seed):
        examples = source(name, tokenizer).examples(chunk, random.Random(seed))
        return [next(examples) for _ in range(3)]

    assert first(2, 0) == first(2, 0)
    # Drills are drawn; problems are numbered.
    assert (first(2, 0) != first(3, 0)) == (name != "drill")
    assert (first(2, 0) != first(2, 1)) == (name == "drill")


def test_names_of_sources(tokenizer):
    assert isinstance(source("drill", tokenizer), Drills)
    assert isinstance(source("chain_sum", tokenizer, seed=3), Problems)
    with pytest.raises(ValueError, match="'gsm8k'; there are gsm_symbolic.* line_copy.*, run:F"):
        source("gsm8k", tokenizer)


def test_prompts_are_those_that_the_harness_asks_with(tokenizer):
    """The hashes are of the reference run's first documents."""
    for task, expected in (("gsm_symbolic", "9961448f1211"), ("chain_sum", "eda4b2b22107")):
        ids = prompt_ids(tokenizer, problems.held_out(task, "test")[0].question)
        assert prompt_hash(ids) == expected


# --- answers of a run ---


@pytest.fixture
def recorded(tokenizer, tmp_path):
    """recorded(...) -> a run over the training split of chain_sum: four answers, of which one never ended."""

    def recorded(documents=4, unended=2, **task):
        task = {"name": "chain_sum", "split": "train", "system_prompt": None, "num_fewshot": 0} | task
        folder = tmp_path / "-".join(map(str, task.values()))
        with Run.open(folder, {"task": task}, {}) as run:
            for number, problem in zip(range(documents), problems.training_split("chain_sum"), strict=False):
                prompt = tokenizer.encode(prompt_text(tokenizer, problem.question, task["system_prompt"]))
                answer = tokenizer.encode(f"it is {number}")
                ended = number != unended
                ids = answer + [tokenizer.eos_token_id] * 2 * ended
                run.append(
                    {
                        "doc_id": number,
                        "repeat": 0,
                        "task": "chain_sum",
                        "prompt_hash": prompt_hash(prompt),
                        "prompt_length": len(prompt),
                        "seed": 0,
                        "ids": ids,
                        "commits": list(range(len(ids))),
                        "text": f"it is {number}",
                        "useful": len(answer),
                        "finish": "stop" if ended else "length",
                        "forwards": {"denoiser": len(ids)},
                        "positions": {"denoiser": len(ids)},
                        "seconds": 0.1,
                        "max_new_tokens": 32 if ended else len(ids),
                        "batch_size": 1,
                        "batch": number,
                        "exact": None,
                        "session": None,
                        "commit": None,
                        "machine": "a machine",
                    }
                )
        return folder

    return recorded


def test_a_run_gives_its_prompts_and_what_was_answered_up_to_the_end(recorded, tokenizer):
    answers = Answers(str(recorded()), tokenizer)
    examples = answers.examples(0, random.Random(0))
    one_pass = [next(examples) for _ in range(3)]  # document 2 filled its canvas: it is left out
    texts = {tokenizer.decode(answer) for example in one_pass for _, answer in example.exchanges}
    assert texts == {f"it is {number}<|im_end|>" for number in (0, 1, 3)}
    questions = [p.question for p, _ in zip(problems.training_split("chain_sum"), range(4), strict=False)]
    for example in one_pass:
        ((prompt, answer),) = example.exchanges
        number = int(tokenizer.decode(answer[-2:-1]))
        assert tokenizer.decode(prompt) == prompt_text(tokenizer, questions[number])
        assert example.is_answer == [False] * len(prompt) + [True] * len(answer) and example.ends
    again = [next(examples) for _ in range(3)]  # another pass, without end
    assert sorted(e.ids for e in again) == sorted(e.ids for e in one_pass)
    replay = answers.examples(7, random.Random(0))
    assert [next(replay) for _ in range(6)] == one_pass + again


def test_a_run_is_a_source_of_a_mixture(recorded, tokenizer, small_chunks):
    folder = recorded(system_prompt="Add up.")
    stream = Stream(tokenizer, {f"run:{folder}": 0.5, "drill": 0.5}, 600, canvas=20)
    texts = [tokenizer.decode(ids) for _ in range(8) for ids in stream.next().ids]
    asked = [text for text in texts if "it is" in text]
    assert asked and len(asked) < len(texts)
    assert all("<|im_start|>system\nAdd up.<|im_end|>" in text for text in asked)
    assert set(stream.fingerprints) == {f"run:{folder}"}


def test_right_answers_alone(recorded, tokenizer):
    """By the metric of the run: document 1 is wrong, 2 never ended."""
    folder = recorded()
    with Run.open(folder, Run.read(folder).config, {}) as run:
        rows = [{"doc_id": i, "repeat": 0, "correct": float(i != 1)} for i in range(4)]
        shared = {"metric": "m,f", "extraction_failed": False, "extracted": "1", "target": "1"}
        run.write_scores(row | shared for row in rows)
        run.update(metric="m,f")
    right = source(f"correct:{folder}", tokenizer)
    assert {tokenizer.decode(answer) for _, answer in right.pairs} == {f"it is {i}<|im_end|>" for i in (0, 3)}
    assert right.fingerprint != source(f"run:{folder}", tokenizer).fingerprint
    with Run.open(folder, Run.read(folder).config, {}) as run:
        run.write_scores(row | shared | {"correct": 0.0} for row in rows)
    with pytest.raises(ValueError, match="none of its 4 answers ends and is right"):
        source(f"correct:{folder}", tokenizer)


def test_answers_that_were_cut_off(recorded, tokenizer):
    """Document 2 never ended: it has no end token, and no end padding follows."""
    every = source(f"all:{recorded()}", tokenizer)
    texts = [tokenizer.decode(answer) for _, answer in every.pairs]
    assert texts == [f"it is {i}" + "<|im_end|>" * (i != 2) for i in range(4)]
    examples = every.examples(0, random.Random(0))
    ends = {tokenizer.decode(e.exchanges[0][1]): e.ends for e in (next(examples) for _ in texts)}
    assert ends == {text: text.endswith("<|im_end|>") for text in texts}


def test_a_diffusion_model_is_not_trained_on_answers_that_were_cut_off():
    cfg = recipe.TrainConfig(
        name="x", objective="masked_diffusion", mixture={"all:runs/x": 1.0}, tokens=1, lr=0.1, canvas=8
    )
    with pytest.raises(
        ValueError, match="all:runs/x: a diffusion model learns where answers end.*run:runs/x"
    ):
        checking.check(cfg)


def test_a_data_set_of_questions_and_answers(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    templated = prompt_text(tokenizer, "How many?")
    rows = [("How many?", "12"), (templated, "13"), ("Why?", "word " * 40)]
    (tmp_path / "set").mkdir()
    file = tmp_path / "set" / "train.jsonl"
    file.write_text("".join(json.dumps({"question": q, "llm_response": a}) + "\n" for q, a in rows))
    found = source(f"hub:{tmp_path / 'set'}", tokenizer, longest=10)
    assert [(tokenizer.decode(p), tokenizer.decode(a)) for p, a in found.pairs] == [
        (templated, "12<|im_end|>"),
        (templated, "13<|im_end|>"),  # it bears the template already
    ]
    file.write_text(json.dumps({"question": "?", "reply": "!"}) + "\n")
    with pytest.raises(ValueError, match="no column of answers among question, reply; rename one to llm"):
        source(f"hub:{tmp_path / 'set'}", tokenizer)
    file.write_text(json.dumps({"question": None, "answer": "b"}) + "\n")
    with pytest.raises(ValueError, match="row 0: column question holds no text"):
        source(f"hub:{tmp_path / 'set'}", tokenizer)
    with pytest.raises(ValueError, match="unknown source 'hub:'"):
        source("hub:", tokenizer)
    with pytest.raises(ValueError, match="hub:.*nowhere: cannot be loaded"):
        source(f"hub:{tmp_path / 'nowhere'}", tokenizer)


def test_other_answers_are_another_fingerprint(recorded, tokenizer):
    four, two = recorded(4), recorded(2, system_prompt="Add up.")
    assert Answers(str(four), tokenizer).fingerprint == Answers(str(four), tokenizer).fingerprint
    assert Answers(str(four), tokenizer).fingerprint != Answers(str(two), tokenizer).fingerprint


@pytest.mark.parametrize(
    "task, message",
    [
        ({"split": "test"}, "answers are to the test split.*task.split=train"),
        ({"split": "validation"}, "answers are to the validation split"),
        ({"split": None}, "task.split=train"),
        ({"name": "gsm8k"}, "task gsm8k.*embedded tasks alone"),
        ({"num_fewshot": 4}, "num_fewshot=4"),
        ({"name": "gsm_symbolic"}, "document 0 is not the one that was answered"),
    ],
)
def test_runs_that_are_not_for_training_are_refused(recorded, tokenizer, task, message):
    folder = recorded(**task)
    with pytest.raises(ValueError, match=message) as refusal:
        Answers(str(folder), tokenizer)
    assert str(folder) in str(refusal.value)


def test_a_run_without_ended_answers_or_that_is_none_is_refused(recorded, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="none of its 1 answers ends"):
        Answers(str(recorded(documents=1, unended=0)), tokenizer)
    with pytest.raises(ValueError, match="no such folder"):
        Answers("results/nowhere", tokenizer)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="run.json"):
        Answers(str(tmp_path / "empty"), tokenizer)
