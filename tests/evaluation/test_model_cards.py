"""A model card is measured, not typed: what it says follows from the answers."""

import pytest

from scripts import model_cards
from scripts.model_cards import DIFFUSION, card
from unmask.records.summary import summarise


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
    own = ("task.max_new_tokens=48", "task.subset_seed=null")  # blocks of 16 divide it; documents 0 to 4
    small = (*models, *own, f"results={tmp_path}", "warm_up=0")
    text = card("tiny_dream", 5, small)
    assert "| gsm_symbolic | left to right | 5 | 100.0% [56.6, 100.0] |" in text
    assert "| chain_sum | left to right | 5 |" in text and "python train.py recipe=tiny_dream" in text
    table = [line for line in text.splitlines() if line.startswith("| ") and line.count("|") == 5]
    rows = [row for row in table if row.startswith(("| K =", "| APD", "| surest"))]
    assert len(rows) == 1 + len(DIFFUSION)
    assert rows[0].startswith("| K = 1 | 100.0%")
    assert all("| 50.0% [" in row and "| -50.0 [" in row for row in rows[1:])
    assert text.count("learning_curve.png") == 1
    assert "are solved less than half of the time." in text


def test_card_of_a_causal_model_has_no_trade_off(models, tmp_path):
    path = models[1].split("=")[1]
    small = (f"model.path={path}", "threads=1", "task.max_new_tokens=8", f"results={tmp_path}", "warm_up=0")
    text = card("tiny_qwen", 2, small)
    assert "greedy" in text and "| K =" not in text
    assert "By template of the generator: 2 of 2 are solved less than half of the time:" in text
    assert text.count(': 0 of 1, "') == 2
