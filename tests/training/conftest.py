import quiet  # noqa: F401

import pytest
from transformers import AutoTokenizer

from config import ROOT


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(ROOT / "checkpoints" / "tiny_qwen_large")
