"""The shipped checkpoints still answer as well, and cost as much, as when they were committed: the real path,
end to end."""

import pytest

from unmask.evaluation.evaluation import Evaluation

DOCUMENTS = 24

# accuracy and tokens per step on the first 24 held-out word problems, at batch 8. Another CPU rounds
# differently, and a single different token can turn an answer: hence the tolerances.
GOLDEN = {
    "model=tiny_qwen_large decoder=autoregressive": (23 / 24, 0.98),
    "model=tiny_qwen decoder=autoregressive": (16 / 24, 0.98),
    "model=tiny_dream decoder=leftright": (23 / 24, 0.98),
    "model=tiny_dream decoder=apd decoder.mixture_weight=0.1": (19 / 24, 6.25),
    "model=tiny_llada decoder=leftright": (24 / 24, 0.98),
    "model=tiny_dparallel_llada decoder=dparallel decoder.block_length=8": (16 / 24, 3.49),
    "model=tiny_d2f_dream decoder=d2f decoder.block_length=8 decoder.block_add_threshold=0.7": (
        20 / 24,
        3.84,
    ),
    "model=tiny_d2f_llada decoder=d2f decoder.block_length=8 decoder.block_add_threshold=0.7": (
        22 / 24,
        3.84,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", GOLDEN)
def test_shipped_checkpoints_reproduce_their_scores(setting, tmp_path):
    overrides = [
        *setting.split(),
        f"limit={DOCUMENTS}",
        "task.subset_seed=null",
        "batch_size=8",
        "threads=1",
        f"run_folder={tmp_path / 'run'}",
    ]
    evaluation = Evaluation.of(*overrides)
    with evaluation.run:
        summary = evaluation.score()
    accuracy, tokens_per_step = GOLDEN[setting]
    assert summary["accuracy"] == pytest.approx(accuracy, abs=2.1 / DOCUMENTS), summary
    assert summary["tokens_per_step"] == pytest.approx(tokens_per_step, rel=0.05), summary
