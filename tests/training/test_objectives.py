"""What the losses count, and that no block of a block-wise loss sees what it is to predict."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from unmask.training import objectives
from unmask.training.data import Batch
from unmask.training.objectives import Autoregressive, MaskedDiffusion, masked_diffusion
from unmask.training.objectives.masked_diffusion import FALL, NEAR, block_diffusion

MASK = 39


def batch(ids, answer, end_padding=None, drill=False):
    end_padding = torch.zeros_like(answer) if end_padding is None else end_padding
    return Batch(ids, answer, end_padding, torch.full((len(ids),), drill))


class Oracle(torch.nn.Module):
    """Logits that depend on nothing, and a record of what was asked."""

    def __init__(self, vocabulary=8, mask=7):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.config = type("Config", (), {"mask_token_id": mask})
        self.vocabulary = vocabulary

    def forward(self, noisy, logits_to_keep):
        self.noisy, self.kept = noisy, logits_to_keep
        logits = self.scale * torch.zeros(int(logits_to_keep.sum()), self.vocabulary)
        return type("Output", (), {"logits": logits})

    def loss(self, batch, **options):
        """Of masked diffusion with these options."""
        return MaskedDiffusion({"student": self}, **options)(batch, torch.Generator().manual_seed(0))


# --- numbers of earlier code: (loss, norm of its gradient) ---
# (of blocks: since a token weighs by the masks before it)

SAME = (
    1e-4  # float32 kernels of another processor add in another order (2e-6 seen); a mistake moves per cents
)
GOLDEN = {
    ("Dream", (), 0): (4.873223, 5.818222),
    ("Dream", (), 1): (4.314899, 5.534074),
    ("Dream", (("left_to_right", 0.7),), 0): (5.558407, 7.254198),
    ("Dream", (("left_to_right", 0.7),), 1): (5.078484, 6.530597),
    ("Dream", (("blocks", 1.0),), 0): (4.491089, 2.890417),
    ("Dream", (("blocks", 1.0),), 1): (4.377378, 2.515475),
    ("Dream", (("blocks", 0.5), ("left_to_right", 0.7)), 0): (4.491089, 2.890417),
    ("Dream", (("blocks", 0.5), ("left_to_right", 0.7)), 1): (5.078484, 6.530597),
    ("llada", (), 0): (4.436956, 5.471574),
    ("llada", (), 1): (3.775005, 3.131417),
    ("llada", (("left_to_right", 0.7),), 0): (5.043415, 3.263045),
    ("llada", (("left_to_right", 0.7),), 1): (4.484837, 3.546165),
    ("llada", (("blocks", 1.0),), 0): (4.28494, 2.503909),
    ("llada", (("blocks", 1.0),), 1): (4.189534, 3.090759),
    ("llada", (("blocks", 0.5), ("left_to_right", 0.7)), 0): (4.28494, 2.503909),
    ("llada", (("blocks", 0.5), ("left_to_right", 0.7)), 1): (4.484837, 3.546165),
}
GOLDEN_BLOCKS = {
    ("Dream", 1, 0): (4.268155, 1.732429),
    ("Dream", 4, 3): (4.373734, 2.130502),
    ("Dream", 16, 5): (4.491089, 2.890417),
    ("llada", 1, 0): (4.120283, 3.234917),
    ("llada", 4, 3): (4.20016, 3.089087),
    ("llada", 16, 5): (4.28494, 2.503909),
}


def loss_and_gradient(loss, model):
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    return loss.item(), norm.item()


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_masked_diffusion_is_numerically_what_it_was(case, build, mixed):
    layout, options, seed = case
    model = build(layout, layers=2)
    objective = MaskedDiffusion({"student": model}, **dict(options))
    loss = objective(mixed, torch.Generator().manual_seed(seed))
    assert loss_and_gradient(loss, model) == pytest.approx(GOLDEN[case], rel=SAME)


@pytest.mark.parametrize("case", GOLDEN_BLOCKS, ids=str)
def test_block_diffusion_is_numerically_what_it_was(case, build, mixed):
    layout, size, offset = case
    model = build(layout, layers=2)
    loss = block_diffusion(model, mixed, size, offset)
    assert loss_and_gradient(loss, model) == pytest.approx(GOLDEN_BLOCKS[case], rel=SAME)


def test_autoregressive_is_numerically_what_it_was(build, mixed):
    model = build("qwen2", layers=2)
    loss = Autoregressive({"student": model})(mixed, torch.Generator())
    assert loss_and_gradient(loss, model) == pytest.approx((4.19645, 1.365085), rel=SAME)


# --- the batch that a model is given, token by token ---

BATCHES = {
    "any_order": {},
    "cuts": {"left_to_right": 0.7},
    "partial_cuts": {"left_to_right": 1.0, "whole_blocks": 0.3},
    "blocks": {"blocks": 1.0},
    "partial_blocks": {"blocks": 1.0, "whole_blocks": 0.3},
}


class Recorder(torch.nn.Module):
    """A student that keeps the tensors that it is given."""

    lookback = 0

    def __init__(self):
        super().__init__()
        self.config = type("Config", (), {"mask_token_id": MASK})
        self.model = self.forward_text

    def forward_text(self, **given):
        self.given = {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
        return type("Output", (), {"last_hidden_state": torch.zeros(*given["input_ids"].shape, 4)})

    def lm_head(self, hidden):
        self.given["targets"] = torch.tensor(len(hidden))
        return torch.zeros(len(hidden), MASK + 1)

    def forward(self, noisy, logits_to_keep):
        self.given = {"input_ids": noisy, "masked": logits_to_keep}
        return type("Output", (), {"logits": torch.zeros(int(logits_to_keep.sum()), MASK + 1)})


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", BATCHES)
def test_a_seed_gives_the_batch_that_trained_the_shipped_models(name, seed, mixed):
    """Ids, masks, who sees whom, positions: as the code before its geometry got names made them."""
    student = Recorder()
    objective = MaskedDiffusion({"student": student}, **BATCHES[name])
    objective(mixed, torch.Generator().manual_seed(seed))
    with np.load(Path(__file__).with_name("masked_batches.npz")) as kept:
        of_this = {key.partition("/")[2]: kept[key] for key in kept if key.startswith(f"{name}-{seed}/")}
    assert of_this.keys() == student.given.keys()
    for key, tensor in student.given.items():
        assert np.array_equal(tensor.numpy(), of_this[key]), key


# --- options ---


@pytest.mark.parametrize(
    "options, message",
    [
        ({"block": 0.5}, "masked_diffusion has no block; it has left_to_right, blocks, whole"),
        ({"blocks": "many"}, "objective_options.blocks.*many"),
        ({"blocks": 1.5}, "blocks=1.5 must be from 0 to 1"),
        ({"left_to_right": -0.1}, "left_to_right"),
        ({"whole_blocks": 1.1}, "whole_blocks=1.1 must be from 0 to 1"),
        ({"largest_block": 0}, "largest_block=0 must be at least 1"),
    ],
)
def test_wrong_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        objectives.typed("masked_diffusion", options)


def test_options_are_completed_and_an_unknown_objective_is_refused():
    assert objectives.typed("masked_diffusion", {"blocks": 1}) == {
        "left_to_right": 0.0,
        "blocks": 1.0,
        "whole_blocks": 1.0,
        "largest_block": 16,
    }
    assert objectives.typed("autoregressive", {}) == {}
    with pytest.raises(ValueError, match="autoregressive has no blocks; it has none"):
        objectives.typed("autoregressive", {"blocks": 1})
    with pytest.raises(ValueError, match="'diffusion' is not one of autoregressive, certainty_forcing"):
        objectives.find("diffusion")


# --- what is counted ---


def test_masked_diffusion_masks_answers_only_and_is_the_weighted_bound():
    ids = torch.arange(6).repeat(200, 1)
    answer = torch.tensor([False, False, True, True, False, False]).repeat(200, 1)
    end_padding = torch.tensor([False, False, False, False, True, True]).repeat(200, 1)
    oracle = Oracle()
    loss = oracle.loss(batch(ids, answer, end_padding))
    masked = oracle.noisy == 7
    assert torch.equal(masked, oracle.kept)
    assert not masked[:, :2].any() and masked[:, 2:].any(0).all()
    # A uniform guess costs log V at every masked token; 1/t makes the expectation log V whatever t is.
    assert abs(loss.item() / torch.tensor(8.0).log().item() - 1) < 0.15
    shares = masked[:, 2:].float().mean(1)
    assert shares.min() < 0.3 and shares.max() > 0.9  # t runs over its whole range


def test_autoregressive_loss_counts_answers_only(build):
    model = build("qwen2")
    ids = torch.randint(0, 40, (2, 9))
    answer = torch.zeros(2, 9, dtype=torch.bool)
    answer[:, 5:] = True
    logits = model(ids).logits[:, 4:8].log_softmax(-1)
    expected = -logits.gather(-1, ids[:, 5:, None]).mean()
    loss = Autoregressive({"student": model})(batch(ids, answer), torch.Generator())
    assert torch.allclose(loss, expected, atol=1e-5)


def test_rows_from_a_cut_on_are_masked_to_their_end_and_weigh_less_with_distance():
    ids = torch.arange(12).repeat(300, 1)
    answer = (torch.arange(12) >= 4).repeat(300, 1)
    oracle = Oracle(vocabulary=16, mask=15)
    loss = oracle.loss(batch(ids, answer), left_to_right=1.0)
    masked = oracle.noisy == 15
    assert not masked[:, :4].any() and masked[:, -1].all()
    assert (masked[:, 1:] >= masked[:, :-1]).all()  # once masked, masked to the end
    assert set(masked.sum(1).tolist()) == set(range(1, 9))  # the cut falls everywhere in the answer
    weights = sum(NEAR * FALL**d for count in masked.sum(1).tolist() for d in range(count))
    assert loss.item() == pytest.approx(math.log(16) * weights / answer.sum().item(), rel=1e-4)


def test_drills_mask_every_result():
    ids = torch.arange(12).repeat(50, 1)
    answer = (torch.arange(12) % 4 == 3).repeat(50, 1)
    oracle = Oracle(vocabulary=16, mask=15)
    oracle.loss(batch(ids, answer, drill=True), left_to_right=0.5)
    assert torch.equal(oracle.noisy == 15, answer)


# --- blocks ---


@pytest.fixture
def losses(monkeypatch):
    """losses(model, batch, size, offset) -> the loss of every asked token, in order."""
    seen = []
    real = masked_diffusion.cross_entropy

    def record(*args, **kwargs):
        seen.append(real(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(masked_diffusion, "cross_entropy", record)

    def of(model, batch, size, offset=0):
        with torch.no_grad():
            block_diffusion(model, batch, size, offset)
        return seen[-1]

    return of


def problem(length=17, start=5):
    ids = torch.randint(1, 39, (1, length), generator=torch.Generator().manual_seed(1))
    return batch(ids, (torch.arange(length) >= start)[None])


@pytest.mark.parametrize("layout", ["Dream", "llada"])
@pytest.mark.parametrize("size, offset", [(1, 0), (4, 0), (4, 3), (16, 2)])
def test_no_block_sees_its_own_tokens_or_later_ones(layout, size, offset, losses, build):
    model, start = build(layout, layers=3), 5
    before = losses(model, problem(), size, offset)
    for changed in range(start, 17):
        other = problem()
        other.ids[0, changed] = 1 + other.ids[0, changed] % 38
        after = losses(model, other, size, offset)
        block = (changed - start + offset) // size
        same = torch.tensor(
            [(i + offset) // size <= block and i != changed - start for i in range(17 - start)]
        )
        assert torch.allclose(before[same], after[same], atol=1e-6)
        later = torch.tensor([(i + offset) // size > block for i in range(17 - start)])
        assert (before[later] != after[later]).all()  # what is clean is seen


@pytest.mark.parametrize("layout", ["Dream", "llada"])
def test_a_block_is_predicted_as_the_model_would_after_the_clean_text(layout, losses, build):
    """One layer deep, keys do not depend on who attends: then block training is the plain forward of every
    prefix. (A Dream's first token of a block comes from a clean token, which here sees no masks.)"""
    model, data, size = build(layout), problem(), 4
    found = losses(model, data, size)
    for start in range(5, 17, size):
        noisy = data.ids[:, : start + size].clone()
        noisy[:, start:] = MASK
        logits = model(noisy, logits_to_keep=torch.arange(start, noisy.size(1))).logits[0]
        expected = torch.nn.functional.cross_entropy(
            logits, data.ids[0, start : start + size], reduction="none"
        )
        skip = model.lookback
        assert torch.allclose(found[start - 5 + skip : start - 5 + size], expected[skip:], atol=1e-5)


def test_blocks_of_one_token_are_next_token_prediction_behind_a_bidirectional_prompt(losses, build):
    model, data = build("Dream", layers=2), problem(start=1)  # a prompt of one token: then all is causal
    sees = torch.ones(17, 17, dtype=torch.bool).tril()[None, None]
    logits = model(data.ids, attention_mask=sees, logits_to_keep=torch.arange(1, 17)).logits[0]
    expected = torch.nn.functional.cross_entropy(logits, data.ids[0, 1:], reduction="none")
    assert torch.allclose(losses(model, data, 1), expected, atol=1e-5)


@pytest.mark.parametrize("layout", ["Dream", "llada"])
def test_rows_of_a_batch_do_not_change_each_others_block_losses(layout, losses, build):
    model = build(layout, layers=2)
    short, long = problem(12, 7), problem(20, 5)
    ids = torch.zeros(2, 20, dtype=torch.long)
    ids[0, :12], ids[1] = short.ids[0], long.ids[0]
    answer = torch.zeros(2, 20, dtype=torch.bool)
    answer[0, 7:12], answer[1, 5:] = True, True
    both = losses(model, batch(ids, answer), 4)
    alone = torch.cat([losses(model, short, 4), losses(model, long, 4)])
    assert torch.allclose(both, alone, atol=1e-5)


def test_far_tokens_of_a_block_weigh_less(losses, build):
    model, data = build("llada"), problem()
    each = losses(model, data, 4, 1)
    # The first block is cut short by one: its first token is the first masked one all the same.
    weights = torch.tensor([FALL ** (i if i < 3 else (i + 1) % 4) for i in range(len(each))])
    assert block_diffusion(model, data, 4, 1).item() == pytest.approx(
        ((each * weights).sum() / weights.sum()).item(), rel=1e-5
    )


def test_blocks_are_drawn_by_share_and_of_every_size(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        masked_diffusion,
        "block_diffusion",
        lambda model, batch, size, offset, *_: drawn.append((size, offset)),
    )
    objective = MaskedDiffusion({"student": Oracle(vocabulary=40, mask=MASK)}, blocks=0.5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        objective(problem(), generator)
    assert 150 < len(drawn) < 250
    assert {size for size, _ in drawn} == {1, 2, 4, 8, 16}
    assert all(0 <= offset < size for size, offset in drawn)


# --- blocks that are masked in part ---


def test_every_block_has_a_mask_ratio_of_its_own():
    block = (torch.arange(64) // 8).expand(2000, 64)
    masked = masked_diffusion.partly_masked(block, 8, 0.3, torch.Generator().manual_seed(0))
    shares = masked.view(2000, 8, 8).float().mean(-1)
    # Ratios of the others run evenly from 1/8 to 1: 0.3 + 0.7 * 0.5625 on average.
    assert shares.mean().item() == pytest.approx(0.3 + 0.7 * 0.5625, abs=0.01)
    # Whole ones, and those that came out whole by chance: the mean of t^8 over those ratios is 0.127.
    assert (shares == 1).float().mean().item() == pytest.approx(0.3 + 0.7 * 0.127, abs=0.01)
    assert abs(torch.corrcoef(shares.T)[0, 1]) < 0.05  # blocks of a row do not share a ratio
    ones = masked_diffusion.partly_masked(block, 1, 0.0, torch.Generator().manual_seed(0))
    assert ones.all()  # a block of one token is always masked


def test_a_batch_in_which_nothing_is_masked_costs_nothing(build, monkeypatch):
    monkeypatch.setattr(masked_diffusion, "partly_masked", lambda block, *_: torch.zeros_like(block).bool())
    assert block_diffusion(build("llada"), problem(), 4, 0, 0.0) == 0


def test_a_token_weighs_less_by_every_masked_one_before_it_in_its_block():
    masked = torch.tensor([[1, 0, 1, 1, 1, 0, 1, 1]]).bool()
    within = torch.tensor([[2, 3, 0, 1, 2, 3, 0, 1]])
    assert masked_diffusion.masked_before(masked, within).tolist() == [[0, 1, 0, 1, 2, 3, 0, 1]]


@pytest.mark.parametrize("layout", ["Dream", "llada"])
def test_a_block_masked_in_part_is_predicted_from_what_it_shows(layout, build, monkeypatch):
    """One layer deep, block training is the plain forward of the clean prefix and the noisy block (a Dream's
    first token of a block apart: it comes from a clean token, which here sees no masks)."""
    model, data, size = build(layout), problem(), 4
    masked = torch.tensor([1, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 1]).bool()
    monkeypatch.setattr(masked_diffusion, "partly_masked", lambda *_: masked[None])
    seen, real = [], masked_diffusion.cross_entropy
    monkeypatch.setattr(
        masked_diffusion, "cross_entropy", lambda *a, **k: seen.append(real(*a, **k)) or seen[-1]
    )
    with torch.no_grad():
        block_diffusion(model, data, size, 0, 0.0)
    found = iter(seen[0].tolist())
    assert len(seen[0]) == masked.sum()
    for start in range(5, 17, size):
        noisy = data.ids[:, : start + size].clone()
        noisy[0, start:][masked[start - 5 : start - 5 + size]] = MASK
        logits = model(noisy).logits[0]
        for place in range(start, start + size):
            if masked[place - 5]:
                loss = next(found)
                expected = torch.nn.functional.cross_entropy(logits[place], data.ids[0, place]).item()
                assert (model.lookback and place == start) or loss == pytest.approx(expected, rel=SAME)


def test_rows_from_a_cut_on_show_part_of_the_block_at_the_cut():
    ids = torch.arange(12).repeat(2000, 1)
    answer = (torch.arange(12) >= 4).repeat(2000, 1)
    oracle = Oracle(vocabulary=16, mask=15)
    loss = oracle.loss(batch(ids, answer), left_to_right=1.0, whole_blocks=0.0, largest_block=4)
    masked = oracle.noisy == 15
    assert not masked[:, :4].any()
    broken = (masked[:, :-1] & ~masked[:, 1:]).any(1)  # a clean token behind a masked one
    assert 0.1 < broken.float().mean() < 0.9
    shown = 12 - masked.flip(1).int().cummin(1).values.sum(1)  # columns before the masked end
    assert (shown - masked.int().argmax(1))[masked.any(1)].max() <= 4  # no more than a block is shown in part
    weights = sum(NEAR * FALL**d for count in masked.sum(1).tolist() for d in range(count))
    assert loss.item() == pytest.approx(math.log(16) * weights / answer.sum().item(), rel=1e-4)
