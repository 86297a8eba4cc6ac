"""A large head takes few rows another way, to the same logits."""

import pytest
import torch
from torch import nn

from unmask.models.heads import FEW, LARGE, use_row_products


class Model(nn.Module):
    def __init__(self, vocabulary, width=64):
        super().__init__()
        self.lm_head = nn.Linear(width, vocabulary, bias=False)

    def get_output_embeddings(self):
        return self.lm_head


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 3), (1, FEW), (3, 5)])
def test_the_logits_are_those_of_the_plain_head(shape):
    model = Model(LARGE // 64)
    hidden = torch.randn(*shape, 64)
    plain = model.lm_head(hidden)
    use_row_products(model)
    found = model.lm_head(hidden)
    assert found.shape == plain.shape and torch.allclose(found, plain, atol=1e-5)


def test_a_small_head_stays_as_it_is():
    model = Model(100)
    use_row_products(model)
    assert "forward" not in vars(model.lm_head)
