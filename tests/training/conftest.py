import unmask  # noqa: F401, I001  (first: it quiets the libraries below)

import pytest
from transformers import AutoTokenizer

from unmask.config import ROOT


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(ROOT / "checkpoints" / "tiny_qwen_large")
