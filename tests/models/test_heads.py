"""A large head takes few rows another way where that is faster, to the same logits."""

import pytest
import torch
from torch import nn

from unmask.models import heads
from unmask.models.heads import LARGE, few_rows, table_times_rows, use_row_products


class Model(nn.Module):
    def __init__(self, vocabulary, width=64):
        super().__init__()
        self.lm_head = nn.Linear(width, vocabulary, bias=False)

    def get_output_embeddings(self):
        return self.lm_head


@pytest.mark.parametrize("few", [1, 8, 15])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 3), (1, 8), (3, 5), (2, 8)])
def test_the_logits_are_those_of_the_plain_head(shape, few, monkeypatch):
    monkeypatch.setattr(heads, "few_rows", lambda *_: few)
    model = Model(LARGE // 64)
    hidden = torch.randn(*shape, 64)
    plain = model.lm_head(hidden)
    use_row_products(model)
    found = model.lm_head(hidden)
    assert found.shape == plain.shape and torch.allclose(found, plain, atol=1e-5)


@pytest.mark.parametrize(("slow_from", "want"), [(2, 1), (9, 8), (15, 14), (99, 15)])
def test_the_number_of_rows_is_measured(slow_from, want, monkeypatch):
    """Up to the first number at which the table times the rows is not clearly faster."""

    def seconds(product, rows, table):
        other = product is table_times_rows
        return 1.0 if other else 1.1 if len(rows) >= slow_from else 2.0

    monkeypatch.setattr(heads, "_seconds", seconds)
    few_rows.cache_clear()
    assert few_rows(64, torch.float32, 1) == want
    few_rows.cache_clear()


def test_a_small_head_stays_as_it_is():
    model = Model(100)
    use_row_products(model)
    assert "forward" not in vars(model.lm_head)
