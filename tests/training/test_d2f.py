"""What the D2F objective masks, who sees what, and what its loss is; a student trains as it decodes."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from unmask.decoding import Board, Fed, Models, Row
from unmask.training import objectives
from unmask.training.data import Batch
from unmask.training.objectives import STUDENT
from unmask.training.objectives.d2f import D2F, block_shares

MASK, BLOCK = 39, 4


class Recorder(torch.nn.Module):
    """A model that remembers its last call."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, ids, **kwargs):
        output = self.model(ids, **kwargs)
        self.ids, self.kwargs, self.logits = ids, kwargs, output.logits
        return output


@pytest.fixture(params=["Dream", "llada"])
def pair(request, build):
    """Student and teacher of different weights, recorded."""
    student, teacher = build(request.param, layers=2), build(request.param, layers=2)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(0.8)
    return {STUDENT: Recorder(student), "teacher": Recorder(teacher)}


@pytest.fixture
def problems(mixed):
    """The rows of `mixed` that are no drills: prompts of 3, 5, 8 and 2 tokens."""
    return Batch(mixed.ids[:4], mixed.answer[:4], mixed.end_padding[:4], mixed.drill[:4])


def run(pair, data, seed=0, **options):
    objective = D2F(pair, **{"block_length": BLOCK, "p_max": 1.0, **options})
    return objective(data, torch.Generator().manual_seed(seed))


def test_the_loss_is_soft_cross_entropy_over_the_share_of_masks(pair, problems):
    """The noise is read off what the models got; the shares from the same seed."""
    loss = run(pair, problems)
    student, teacher = pair[STUDENT], pair["teacher"]
    assert torch.equal(student.ids, teacher.ids) and "attention_mask" not in teacher.kwargs
    masked = student.kwargs["logits_to_keep"]
    maskable = problems.maskable
    assert torch.equal(masked, student.ids != problems.ids) and not (masked & ~maskable).any()
    prompts = torch.tensor([3, 5, 8, 2])
    blocks = -(-(24 - prompts) // BLOCK)
    shares = block_shares(blocks, "monotone", 0.2, 1.0, torch.Generator().manual_seed(0))
    total, count = 0.0, 0
    rows, columns = masked.nonzero(as_tuple=True)
    for k, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        wanted = teacher.logits[k].softmax(-1)
        distance = -(wanted * student.logits[k].log_softmax(-1)).sum()
        total += distance / shares[row, (column - prompts[row]) // BLOCK]
        count += 1
    torch.testing.assert_close(loss, total / count)


def test_hard_labels_are_the_text(pair, problems):
    loss = run(pair, problems, targets="data", p_min=0.5, p_max=0.5)
    student = pair[STUDENT]
    wanted = problems.ids[student.kwargs["logits_to_keep"]]
    torch.testing.assert_close(loss, cross_entropy(student.logits, wanted) / 0.5)
    assert not hasattr(pair["teacher"], "ids")


def test_a_student_trains_on_what_it_sees_when_it_decodes(pair, problems):
    """Its logits are those of a block-causal forward of the board over the same text."""
    run(pair, problems)
    student = pair[STUDENT]
    masked, noisy = student.kwargs["logits_to_keep"], student.ids
    rows = []
    for i, prompt in enumerate([3, 5, 8, 2]):
        row = Row.fresh(i, noisy[i, :prompt].tolist(), 24 - prompt, 0, ["denoiser"])
        row.canvas = [None if t == MASK else t for t in noisy[i, prompt:].tolist()]
        rows.append(row)
    board = Board(rows, Models({"denoiser": student.model}))
    board.ids[:] = noisy
    with torch.no_grad():
        marginals = board.denoise(Fed([range(24)] * 4, BLOCK))
        logits = student.model.lm_head(marginals.hidden)[masked]
    torch.testing.assert_close(student.logits.detach(), logits, atol=1e-5, rtol=1e-4)


def test_monotone_noise_grows_from_block_to_block_inside_its_range():
    blocks = torch.randint(1, 9, (500,), generator=torch.Generator().manual_seed(1))
    shares = block_shares(blocks, "monotone", 0.2, 0.7, torch.Generator().manual_seed(2))
    assert shares.shape == (500, 8)
    for row, count in zip(shares, blocks.tolist(), strict=True):
        mine = row[:count]
        assert (mine >= 0.2).all() and (mine <= 0.7).all() and (mine.diff() >= 0).all()
        if count > 1:  # no step is longer than one of count - 1 equal ones up to the top
            assert mine.diff().max() <= (0.7 - mine[0]) / (count - 1) + 1e-6
    first = shares[:, 0]
    assert abs(first.mean() - 0.45) < 0.02 and first.min() < 0.22 and first.max() > 0.68


def test_random_noise_is_drawn_block_by_block():
    shares = block_shares(torch.full((500,), 6), "random", 0.2, 0.7, torch.Generator().manual_seed(2))
    assert shares.min() >= 0.2 and shares.max() <= 0.7 and (shares.diff() < 0).any(1).float().mean() > 0.9
    assert abs(torch.corrcoef(shares.T)[0, 1]) < 0.15


def test_finished_blocks_have_no_masks_and_the_noise_begins_behind_them(pair, problems):
    """With p = 1 a row is clean up to one of the blocks of its answer, and all masks from there on."""
    prompts, firsts = [3, 5, 8, 2], [set() for _ in range(4)]
    answered = (problems.answer.int() * torch.arange(24)).amax(1)
    for seed in range(30):
        run(pair, problems, seed=seed, p_min=1.0, finished=True)
        masked = pair[STUDENT].kwargs["logits_to_keep"]
        maskable = problems.maskable
        for row, first in enumerate(masked.int().argmax(1).tolist()):
            assert torch.equal(masked[row, first:], maskable[row, first:]) and not masked[row, :first].any()
            firsts[row].add((first - prompts[row]) / BLOCK)
    for row, found in enumerate(firsts):
        assert found == set(range((int(answered[row]) - prompts[row]) // BLOCK + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_length": 0}, "block_length=0 must be at least 1"),
        ({"noise": "pink"}, "noise='pink' is not one of monotone, random"),
        ({"targets": "both"}, "targets='both' is not one of teacher, data"),
        ({"p_min": 0.0}, "p_min=0.0"),
        ({"p_min": 0.8, "p_max": 0.7}, "p_min=0.8 and p_max=0.7"),
        ({"p_max": 1.1}, "p_max=1.1"),
        ({"decoder": 1}, "d2f has no decoder; it has block_length, noise"),
    ],
)
def test_wrong_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        objectives.typed("d2f", options)


@pytest.mark.parametrize("recipe", ["d2f_llada", "d2f_dream"])
def test_the_published_recipes_train_an_adapter_beside_itself(recipe, trained_adapter):
    _, changed = trained_adapter(recipe, "d2f", "qwen7b_answer")
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "k_proj", "v_proj", "o_proj"}
