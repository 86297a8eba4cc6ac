import unmask.quiet  # noqa: F401, I001  (first: it quiets the libraries below)

import os
import sys

import pytest
import torch


# Files of 15 seconds and more: they come first, so that no process ends alone with one of them.
LONG = """test_emulated test_papers test_golden_traces test_reference test_compiled test_scripts
    test_evaluation test_readme test_train test_lm_eval test_report test_sweep test_blocks test_all_decoders
    test_unmasking test_bench test_bad_input test_dflash test_prompts"""


def pytest_collection_modifyitems(items):
    """`--no-loadscope-reorder` keeps this order; pytest-xdist's own puts files of few tests last."""
    items.sort(key=lambda item: item.path.stem not in LONG.split())


@pytest.fixture(autouse=True)
def one_thread():
    """The models of the tests are so small that a second thread only waits; a run sets what it was told."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_environment():
    """What a command sets in the environment of its process ends with the test."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


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
