"""What certainty forcing masks, row by row, and what its two terms are."""

import math

import pytest
import torch

from unmask.training import objectives
from unmask.training.data import Batch
from unmask.training.objectives import STUDENT
from unmask.training.objectives.certainty_forcing import CertaintyForcing, chosen_block

MASK = 15
PROMPT, ANSWER, WIDTH = 3, (9, 6), 16  # two rows: answers of 9 and of 6 tokens, then silence


class Scripted(torch.nn.Module):
    """The same logits whatever is asked, and a record of what was."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)
        self.config = type("Config", (), {"mask_token_id": MASK})

    def forward(self, noisy, logits_to_keep):
        self.noisy, self.kept = noisy, logits_to_keep
        logits = self.logits.expand(int(logits_to_keep.sum()), -1)
        return type("Output", (), {"logits": logits})


def batch(rows=1, token=None):
    """`rows` copies of the two rows; ids count up, or are all `token`."""
    column = torch.arange(WIDTH).expand(2, -1)
    ends = PROMPT + torch.tensor(ANSWER)[:, None]
    answer = (column >= PROMPT) & (column < ends)
    ids = column % 14 if token is None else torch.full((2, WIDTH), token)
    parts = ids, answer, column >= ends, torch.zeros(2).bool()
    return Batch(*(part.repeat(rows, *[1] * (part.ndim - 1)) for part in parts))


def run(logits, data, seed=0, **options):
    model = Scripted(logits)
    objective = CertaintyForcing({STUDENT: model}, **options)
    return objective(data, torch.Generator().manual_seed(seed)), model


def test_each_row_has_a_block_of_its_own_and_a_masked_future():
    """Every masking decision is the row's own, which the published code gets right for one row alone."""
    data, begins = batch(rows=200), ([], [])
    _, model = run(torch.zeros(16), data, block_length=4)
    first, second = model.noisy.chunk(2)
    one, other = model.kept.chunk(2)
    assert not (one & other).any()
    for row in range(400):
        block = (one | other)[row].nonzero()[:, 0].tolist()
        begin, answer = block[0], ANSWER[row % 2]
        assert (begin - PROMPT) % 4 == 0 and begin < PROMPT + answer
        assert block == list(range(begin, begin + 4))  # it may reach into the silence
        begins[row % 2].append(begin)
        for noisy, masked in ((first[row], one[row]), (second[row], other[row])):
            hidden = noisy == MASK
            assert torch.equal(hidden[begin : begin + 4], masked[begin : begin + 4])
            assert not hidden[:begin].any() and hidden[begin + 4 :].all()
            assert torch.equal(noisy[~hidden], data.ids[row][~hidden])
    assert set(begins[0]) == {3, 7, 11} and set(begins[1]) == {3, 7}
    assert begins[0].count(3) == pytest.approx(200 / 3, abs=25)
    share = one.float().sum() / (one | other).float().sum()
    assert share.item() == pytest.approx(0.5, abs=0.05)


def test_without_blocks_the_whole_answer_is_at_work():
    data = batch()
    block, after = chosen_block(data.maskable, data.answer, None, torch.Generator())
    assert torch.equal(block, data.answer) and torch.equal(after, data.end_padding)


def test_all_masked_leaves_the_second_copy_nothing():
    _, model = run(torch.zeros(16), batch(), mask_ratio=1.0, block_length=None)
    one, other = model.kept.chunk(2)
    assert torch.equal(one, batch().answer) and not other.any()


def test_cross_entropy_counts_all_masked_tokens_and_entropy_the_right_ones():
    """Token 5 is predicted everywhere: right in rows of fives, wrong in rows of sixes."""
    logits = torch.zeros(16)
    logits[5] = 2.0
    ratio = math.exp(2) / (math.exp(2) + 15)
    sharp = (2 * logits).softmax(-1)  # at temperature 0.5
    nats = -(sharp * sharp.log()).sum().item()
    for token, expected, uncertain in ((5, -math.log(ratio), nats), (6, 2 - math.log(ratio), 0.0)):
        data = batch(rows=20, token=token)
        loss, model = run(logits, data, beta=0.0, block_length=4)
        counted = model.kept.any(1).float().mean().item()  # a copy may have nothing masked
        assert loss.item() == pytest.approx(2 * expected * counted, rel=1e-5)
        both, _ = run(logits, data, beta=3.0, block_length=4)
        assert both.item() == pytest.approx(2 * counted * (expected + 3 * uncertain), rel=1e-5)
        alone, _ = run(logits, data, beta=1.0, consistency=0.0, block_length=4)
        assert alone.item() == pytest.approx(2 * counted * uncertain, abs=1e-5)


def test_rows_count_alike_however_many_tokens_they_mask():
    logits = torch.zeros(16)
    logits[5] = 2.0
    data = batch(token=5)
    data.ids[1] = 6  # the row with fewer tokens is wrong
    loss, model = run(logits, data, beta=0.0, block_length=None)
    ratio = math.exp(2) / (math.exp(2) + 15)
    assert model.kept.any(1).all() and model.kept.sum(1).unique().numel() > 1
    assert loss.item() == pytest.approx(-2 * math.log(ratio) + 2, rel=1e-5)


def test_the_entropy_makes_right_tokens_surer():
    logits = torch.zeros(16)
    logits[5] = 1.0
    model = Scripted(logits)
    objective = CertaintyForcing({STUDENT: model}, beta=1.0, consistency=0.0)
    objective(batch(token=5), torch.Generator().manual_seed(0)).backward()
    assert model.logits.grad[5] < 0 < model.logits.grad[0]


@pytest.mark.parametrize("layout", ["Dream", "llada"])
def test_real_models_predict_every_token_from_its_own_row(layout, build):
    """A row of a batch costs what it costs alone, in the same masks."""
    model = build(layout, layers=2)
    data = batch()
    block, after = chosen_block(data.maskable, data.answer, 4, torch.Generator().manual_seed(1))
    noisy = torch.where(block | after, 39, data.ids)
    together = model(noisy, logits_to_keep=block).logits
    alone = torch.cat([model(noisy[i : i + 1], logits_to_keep=block[i : i + 1]).logits for i in range(2)])
    assert torch.allclose(together, alone, atol=1e-5)
    loss = CertaintyForcing({STUDENT: model}, block_length=4)(data, torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"beta": -1}, "beta=-1.* must be 0 or more"),
        ({"consistency": -0.5}, "consistency"),
        ({"temperature": 0}, "temperature=0.* must be above 0"),
        ({"mask_ratio": 0}, "mask_ratio=0.* must be above 0"),
        ({"mask_ratio": 1.5}, "mask_ratio=1.5"),
        ({"block_length": 0}, "block_length=0 must be at least 1"),
        ({"alpha": 1}, "certainty_forcing has no alpha; it has beta, consistency"),
    ],
)
def test_wrong_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        objectives.typed("certainty_forcing", options)


@pytest.mark.parametrize("recipe", ["dparallel_llada", "dparallel_dream"])
def test_the_published_recipes_train_an_adapter(recipe, trained_adapter):
    record, changed = trained_adapter(recipe, "dparallel", "llm_response")
    assert record["settings"]["objective"] == "certainty_forcing"
    assert changed and all(name.rpartition(".weight")[0].endswith("_proj") for name in changed)
