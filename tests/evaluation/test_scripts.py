"""The programs of scripts/: main job, model cards, certainty of masks, numbers of the pages."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from scripts import certainty_by_kind, certainty_map, doc_numbers, model_cards
from scripts.certainty_by_kind import kind_of
from scripts.doc_numbers import renewed, written_as
from scripts.main_job import ARMS, main
from scripts.model_cards import DIFFUSION, card
from unmask.paths import ROOT
from unmask.records.summary import summarise
from unmask.report.certainty import draw

MASK = 9


# The main job


def test_main_job_prints_a_table_and_draws_a_figure(models, tmp_path, capsys):
    overrides, figure = (*models, f"results={tmp_path}"), tmp_path / "figure.png"
    main(3, overrides, figure)
    out = capsys.readouterr().out
    assert "one token a step" in out and "APD" in out and "tiny stand-in family" in out
    last = json.loads(out.splitlines()[-1])
    assert {name: arm["n"] for name, arm in last.items()} == dict.fromkeys(ARMS, 3)
    assert figure.stat().st_size > 10_000

    main(3, overrides, figure)
    out = capsys.readouterr().out
    assert "nothing to decode" in out
    assert [arm["decoded_now"] for arm in json.loads(out.splitlines()[-1]).values()] == [0] * len(ARMS)


# Model cards: what one says follows from the answers


@pytest.fixture
def every_other_right(monkeypatch):
    """K = 1 is right on every problem, all other decoders on every other one."""
    measure = model_cards.measure

    def graded(name, setting, *arguments):
        evaluation = measure(name, setting, *arguments)
        best = setting == ["decoder=leftright"]
        evaluation.scored = [s | {"correct": float(best or s["doc_id"] % 2)} for s in evaluation.scored]
        evaluation.summary = summarise(evaluation.scored)
        return evaluation

    monkeypatch.setattr(model_cards, "measure", graded)


def test_card_tells_what_the_model_is_and_what_decoding_does_to_it(models, tmp_path, every_other_right):
    own = ("task.max_new_tokens=16", "task.subset_seed=null")  # blocks of 16 divide it; documents 0 to 4
    small = (*models, *own, f"results={tmp_path}", "warm_up=0")
    text = card("tiny_dream", 5, small)
    assert "| gsm_symbolic | left to right | 5 | 100.0% [56.6, 100.0] |" in text
    assert "| chain_sum | left to right | 5 |" in text and "python train.py recipe=tiny_dream" in text
    table = [line for line in text.splitlines() if line.startswith("| ") and line.count("|") == 5]
    rows = [row for row in table if row.startswith(("| K =", "| APD", "| surest"))]
    assert len(rows) == 1 + len(DIFFUSION)
    assert rows[0].startswith("| K = 1 | 100.0%")
    assert all("| 50.0% [" in row and "| -50.0 [" in row for row in rows[1:])
    assert text.count("learning_curves.png") == 1
    assert "are solved less than half of the time." in text


def test_card_of_a_causal_model_has_no_trade_off(models, tmp_path):
    path = models[1].split("=")[1]
    small = (f"model.path={path}", "threads=1", "task.max_new_tokens=8", f"results={tmp_path}", "warm_up=0")
    text = card("tiny_qwen", 2, small)
    assert "greedy" in text and "| K =" not in text
    assert "By template of the generator: 2 of 2 are solved less than half of the time:" in text
    assert text.count(': 0 of 1, "') == 2


def test_card_of_a_parallel_model_has_every_task_of_parallelbench(monkeypatch):
    asked = []

    def measured(name, setting, documents, overrides, task):
        asked.append(setting)
        right = 0.5 if "task.name=line_sort" in setting else 1.0
        return SimpleNamespace(summary={"n": documents, "accuracy": right, "accuracy_interval": [right, 1]})

    monkeypatch.setattr(model_cards, "measure", measured)
    monkeypatch.setattr(model_cards, "summary_table", lambda found: "")
    monkeypatch.setattr(model_cards.problems, "fingerprint", lambda task: "0a1b")
    text = card("tiny_parallel_llada", 7)
    rows = [line for line in text.splitlines() if line.startswith(("| line_", "| latin", "| sudoku"))]
    assert len(rows) == 12 and all(row.count("|") == 7 for row in rows)
    assert rows[0].startswith("| line_copy | 7 | 100.0% [100.0, 100.0] | 100.0% [100.0, 100.0] |  | ")
    assert rows[3].startswith("| line_shuffle | 7 | ") and "|  |" not in rows[3]  # drawn, too
    assert len(asked) == 12 * 2 + 4 and "from tiny_parallel_dream" in text and "reasoning-gym" not in text
    assert text.endswith("Below 95% (puzzles: 80%), greedy, left to right: line_sort.\n")


# Certainty


def test_kinds_of_tokens():
    assert [kind_of(text) for text in (" apples", "7", " +", "####", "\n", "x2")] == [
        "words",
        "digits",
        "signs",
        "signs",
        "words",
        "digits",
    ]


def test_a_table_of_the_shipped_models(tmp_path, capsys):
    certainty_by_kind.main(["tiny_dream", "--limit", "1", "--results", str(tmp_path)])
    out = capsys.readouterr().out
    assert "tiny_dream" in out and "digits" in out and "right_at_once" in out


def test_canvases_are_those_before_each_step():
    sample = {"ids": [5, 6, 7], "commits": [1, -1, 0, 1]}
    assert certainty_map.before_each_step(sample, 5, MASK).tolist() == [
        [MASK] * 5,
        [MASK, MASK, 6, MASK, MASK],
    ]


def test_a_map_of_a_recorded_run(evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(certainty_map, "FEWEST", 1)
    setting = "decoder=confidence decoder.block_length=8 decoder.quota=even decoder.after_end=fill"
    evaluation = evaluate("limit=6", *setting.split())
    evaluation.score()
    found = certainty_map.certainty(evaluation)
    assert found.shape == (24, 24)  # one token a step, to the last slot
    assert (
        np.isfinite(found[0]).all() and (found[0] > 1 / 2048).all() and (found[np.isfinite(found)] <= 1).all()
    )
    for step in range(24):  # blocks of 8 from the left: finished ones have no mask, later ones nothing else
        block = step // 8
        assert np.isnan(found[step, : 8 * block]).all() and np.isfinite(found[step, 8 * (block + 1) :]).all()
    # The first cell, by hand.
    prompts = evaluation.lm.prompts(evaluation.requests)
    sure = []
    for prompt in prompts:
        ids = torch.cat((prompt, torch.full((24,), evaluation.lm.models.mask_id)))[None]
        logits = evaluation.lm.models.main(input_ids=ids).logits[0, len(prompt)].detach()
        logits[evaluation.lm.models.mask_id] = -torch.inf
        sure.append(logits.softmax(-1).max().item())
    assert found[0, 0] == pytest.approx(np.mean(sure), rel=1e-5)
    draw({"one": found, "another": found[:4]}, tmp_path / "map", "a note")
    assert (tmp_path / "map.png").stat().st_size > 10_000


# The numbers of README.md and docs/ are those of the reference run


def test_pages_have_numbers_that_are_checked_and_no_comments():
    pages = {Path(name).name for name in yaml.safe_load(doc_numbers.SENTENCES.read_text())}
    assert pages == {"README.md", "apd.md", "d2f.md", "dparallel.md", "dflash.md"}
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "results").rglob("*.md")):
        assert "<!--" not in page.read_text(), page


def test_the_numbers_of_the_pages_are_the_reference_runs(capsys):
    assert doc_numbers.main(write=False) == 0, capsys.readouterr().out


def test_a_number_keeps_its_form():
    assert written_as("85.5% [80.0, 89.7]", [90.0, 85.04, 93.36]) == "90.0% [85.0, 93.4]"
    assert written_as("+1.0 [-1.5, +3.5]", [-2.0, -4.5, 0.5]) == "-2.0 [-4.5, +0.5]"
    assert written_as("1,234", [56789.4]) == "56,789"
    assert written_as("85% [80, 90]", [1.0, 2.0, 3.0]) == "1% [2, 3]"
    assert written_as("0.19", [0.194, 0.1, 0.3]) == "0.19"  # an interval is not asked for
    with pytest.raises(ValueError, match="there is no interval"):
        written_as("2.2 [2.0, 2.4]", [2.2])


def test_numbers_are_found_in_their_sentences():
    asked = []

    def look_up(words, measure):
        asked.append((words, measure))
        return [0.815, 0.7, 0.9]

    text = "It has 80.0%\nright at 3 a step,\n2.2\n[2.0, 2.4] times. It has 7.\n\n"
    text += "| one | 80.0% [1.0, 2.0] |  |\n"
    sentences = [
        "has {accuracy: a=1 b=2} right at {tokens_per_step: a=1 b=2} a step, {speedup: c against d} times.",
        {"row": "| $name | {accuracy: $run} | {drafter_per_step: $run} |", "runs": {"one": "e=1"}},
    ]
    found, changes = renewed(text, sentences, look_up)
    assert found == text.replace("80.0%\n", "81.5%\n").replace("at 3", "at 1").replace(
        "2.2\n[2.0, 2.4]", "0.8\n[0.7, 0.9]"
    ).replace("80.0% [1.0, 2.0]", "81.5% [70.0, 90.0]")
    assert [change[:2] for change in changes][:2] == [("80.0%", "81.5%"), ("3", "1")]
    assert asked == [
        ("a=1 b=2", "accuracy"),
        ("a=1 b=2", "tokens_per_step"),
        ("c against d", "speedup"),
        ("e=1", "accuracy"),
    ]
    assert renewed(found, sentences, look_up) == (found, [])
    for not_once in ("It has {accuracy: a} wrong", "It has {accuracy: a}"):
        with pytest.raises(ValueError, match="times in the text: It has"):
            renewed(text, [not_once], look_up)
