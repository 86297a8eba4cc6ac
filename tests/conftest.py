import quiet  # noqa: F401  (before the libraries it quiets)

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The models of the tests are so small that a second thread only waits."""
    torch.set_num_threads(1)
