"""A sample and a score to change in one place."""

import pytest


def make_sample(doc_id: int = 0, repeat: int = 0, **changes: object) -> dict:
    """A document of three steps: the second committed the end, and left a gap."""
    return {
        "doc_id": doc_id,
        "repeat": repeat,
        "task": "toy",
        "prompt_hash": "ab",
        "prompt_length": 5,
        "seed": 7,
        "ids": [5, 6, 2, 9],
        "commits": [0, 1, 1, -1, 0],
        "text": "ünï\u2028\n",
        "useful": 2,
        "finish": "stop",
        "forwards": {"denoiser": 3, "auxiliary": 1},
        "positions": {"denoiser": 24, "auxiliary": 4},
        "seconds": 0.5,
        "max_new_tokens": 8,
        "batch_size": 1,
        "batch": doc_id,
        "exact": None,
        "session": None,
        "commit": "0123456789ab",
        "machine": "a CPU, 2 cores, abcdef",
    } | changes


def make_score(
    doc_id: int = 0, repeat: int = 0, correct: float | None = 1.0, metric: str = "exact_match,strict"
):
    return {
        "doc_id": doc_id,
        "repeat": repeat,
        "metric": metric,
        "correct": correct,
        "extraction_failed": False,
        "extracted": "4",
        "target": "4",
    }


@pytest.fixture(scope="session")
def sample():
    return make_sample


@pytest.fixture(scope="session")
def score():
    return make_score
