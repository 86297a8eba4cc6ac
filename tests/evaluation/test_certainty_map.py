"""The certainty map looks at the canvases that a recorded run went through."""

import numpy as np
import pytest
import torch

from scripts import certainty_map
from unmask.report.certainty import draw

MASK = 9


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
