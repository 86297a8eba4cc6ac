"""What a position may attend to, by hand, and against the definition."""

import pytest
import torch

from unmask.decoding.visibility import attention_mask, block_causal, causal, full


def columns(*rows):
    return torch.tensor(rows)


def test_full_sees_up_to_the_rows_end():
    sees = full(columns([0, 1, 2], [2, 3, 4]), torch.tensor([3, 7]))
    assert sees.tolist() == [[3, 3, 3], [7, 7, 7]]


def test_causal_sees_itself_and_what_stands_left_of_it():
    assert causal(columns([0, 1, 2], [5, 6, 7])).tolist() == [[1, 2, 3], [6, 7, 8]]


def test_block_causal_sees_up_to_the_end_of_its_block():
    """The prompt is block 0; here of 3 columns, and of 1."""
    sees = block_causal(columns(range(8), range(8)), torch.tensor([3, 1]), 2)
    assert sees.tolist() == [[3, 3, 3, 5, 5, 7, 7, 9], [1, 3, 3, 5, 5, 7, 7, 9]]


def test_block_causal_without_a_prompt_and_in_the_middle_of_a_row():
    assert block_causal(columns([0, 1, 2, 3]), torch.tensor([0]), 3).tolist() == [[3, 3, 3, 6]]
    assert block_causal(columns([5, 6, 7]), torch.tensor([2]), 4).tolist() == [[6, 10, 10]]


def test_block_causal_limits():
    """Blocks of one are causal within the canvas; one block is full, but that the prompt does not see it."""
    some, prompts = columns(range(4, 12)), torch.tensor([4])
    assert torch.equal(block_causal(some, prompts, 1), causal(some))
    assert torch.equal(block_causal(some, prompts, 8), full(some, torch.tensor([12])))


def test_attention_mask():
    sees = torch.tensor([[1, 3], [2, 2]])
    mask = attention_mask(sees, torch.arange(4))
    assert mask.shape == (2, 1, 2, 4) and mask.dtype == torch.bool
    assert mask[:, 0].int().tolist() == [[[1, 0, 0, 0], [1, 1, 1, 0]], [[1, 1, 0, 0], [1, 1, 0, 0]]]
    # Keys of each row's own: here the second row's are four columns further right, in another order.
    own = attention_mask(sees, columns([0, 1, 2], [5, 1, 4]))
    assert own[:, 0].int().tolist() == [[[1, 0, 0], [1, 1, 1]], [[0, 1, 0], [0, 1, 0]]]


@pytest.mark.parametrize("block_length", [1, 2, 5])
def test_block_causal_masks_are_the_definition(block_length):
    """i attends to j exactly if j's block is not later than i's."""
    for prompt in range(5):
        some = torch.arange(14)
        mask = attention_mask(block_causal(some[None], torch.tensor([prompt]), block_length), some)[0, 0]

        def block(j, prompt=prompt):
            return 0 if j < prompt else 1 + (j - prompt) // block_length

        for i in range(14):
            assert mask[i].tolist() == [block(j) <= block(i) for j in range(14)]
