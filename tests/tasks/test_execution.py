"""execution.run: what passes, what fails, and that the limits hold."""

import time

import pytest

from unmask.tasks import execution


def test_a_program_passes_or_says_why_not():
    assert execution.run("import math\nassert math.sqrt(4) == 2") == "passed"
    assert execution.run("raise KeyError('gone')") == "failed: KeyError: 'gone'"
    assert execution.run("def broken(:").startswith("failed: SyntaxError")


@pytest.mark.parametrize(
    "program",
    ["import sys; sys.exit(0)", "import os; os._exit(0)", "print('passed'); raise ValueError", "exit()"],
)
def test_an_early_end_is_no_pass(program):
    assert execution.run(program).startswith("failed")


def test_an_infinite_loop_times_out():
    start = time.monotonic()
    assert execution.run("while True: pass", timeout=1) == "timed out"
    assert time.monotonic() - start < 5


def test_a_memory_hog_dies():
    assert execution.run("x = bytearray(2**30)", memory=2**29) == "failed: MemoryError: "


def test_a_program_writes_no_large_file():
    program = f"with open('x', 'wb') as file: file.write(bytes({2 * execution.FILE_SIZE}))"
    assert "File too large" in execution.run(program)


def test_a_program_sees_neither_the_environment_nor_the_checkout(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert (
        execution.run("import os\nassert 'HF_TOKEN' not in os.environ\nassert os.listdir('.') == []")
        == "passed"
    )
    assert execution.run("import problems").startswith("failed: ModuleNotFoundError")


def test_children_of_a_program_die_with_it(tmp_path):
    """The child would write after the program's end; by then it is gone with its group."""
    mark = tmp_path / "mark"
    child = f"import time; time.sleep(1); open({str(mark)!r}, 'w')"
    start = (
        "import multiprocessing.util as util, os, sys, time\n"
        f"child = util.spawnv_passfds(sys.executable.encode(), [b'python', b'-c', {child.encode()!r}], [])\n"
    )
    assert execution.run(start + "os.waitpid(child, 0)") == "passed"
    assert mark.exists()  # a child can write, if the program waits for it
    mark.unlink()
    assert execution.run(start + "time.sleep(0.3)") == "passed"  # the child has started
    time.sleep(1.5)
    assert not mark.exists()
