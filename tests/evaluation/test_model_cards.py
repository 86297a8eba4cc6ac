"""A model card is measured, not typed: on random models it says what random models do."""

from scripts.model_cards import DIFFUSION, card


def test_card_tells_what_the_model_is_and_what_decoding_does_to_it(models, tmp_path):
    text = card("tiny_dream", 3, (*models, f"results={tmp_path}"))
    assert "| gsm_symbolic | 3 | 0.0% [0.0, 56.1] |" in text
    assert "| chain_sum | 3 |" in text and "python train.py recipe=tiny_dream" in text
    rows = [
        line for line in text.splitlines() if line.startswith(("| K =", "| APD", "| confidence", "| random"))
    ]
    assert len(rows) == 1 + len(DIFFUSION) and all("+0.0 [" in row for row in rows[1:])
    assert "| K = 4 |" in text and text.count("learning_curve.png") == 1


def test_card_of_a_causal_model_has_no_trade_off(models, tmp_path):
    path = models[1].split("=")[1]
    text = card("tiny_qwen", 2, (f"model.path={path}", "threads=1", "task.budget=8", f"results={tmp_path}"))
    assert "greedy" in text and "| K =" not in text
