import unmask.quiet  # noqa: F401, I001  (first: it quiets the libraries below)

import sys

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The models of the tests are so small that a second thread only waits."""
    torch.set_num_threads(1)


@pytest.fixture
def run_command(monkeypatch, capsys):
    """run_command(module, argument, ...) -> (exit code, stdout, stderr) of that module's `main`, in this
    process."""

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module.__file__, *arguments])
        try:
            module.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run
