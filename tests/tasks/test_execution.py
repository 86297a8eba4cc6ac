"""execution.run: what passes, what fails, and that the limits hold."""

import tempfile
import time

import pytest

from unmask.tasks import execution


def test_a_program_passes_or_says_why_not():
    assert execution.run("import math\nassert math.sqrt(4) == 2") == "passed"
    assert execution.run("raise KeyError('gone')") == "failed: KeyError: 'gone'"
    assert execution.run("def broken(:").startswith("failed: SyntaxError")


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "print('passed'); raise ValueError",
        "exit()",
        "raise ValueError(chr(0xD800))",  # a text that UTF-8 has no bytes for
        "class E(Exception):\n    __str__ = None\nraise E",
        "def deeper(n): return deeper(n + 1)\ndeeper(0)",
        "x = 1\0",
    ],
)
def test_an_early_end_is_no_pass(program):
    assert execution.run(program).startswith("failed")


def test_an_infinite_loop_times_out():
    start = time.monotonic()
    assert execution.run("while True: pass", cpu=1) == "timed out"
    assert time.monotonic() - start < 10


def test_a_program_that_waits_times_out():
    assert execution.run("import time\ntime.sleep(60)", timeout=0.2) == "timed out"


def test_a_busy_machine_makes_no_program_fail(monkeypatch):
    """The start of the interpreter is not on the clock."""
    monkeypatch.setattr(execution, "CHILD", "import time\ntime.sleep(0.5)\n" + execution.CHILD)
    assert execution.run("pass", timeout=0.4) == "passed"


@pytest.mark.parametrize("child", ["import no_such_package", "while True: pass"])
def test_an_interpreter_that_does_not_start_is_no_score(monkeypatch, child):
    monkeypatch.setattr(execution, "CHILD", child)
    monkeypatch.setattr(execution, "START", 0.5)
    with pytest.raises(RuntimeError, match="did not start"):
        execution.run("pass")


def test_a_memory_hog_dies():
    assert execution.run("x = bytearray(2**30)", memory=2**29) == "failed: MemoryError: "


def test_a_program_writes_no_large_file():
    program = f"with open('x', 'wb') as file: file.write(bytes({2 * execution.FILE_SIZE}))"
    assert "File too large" in execution.run(program)


def test_a_program_that_writes_more_than_a_pipe_holds_ends():
    assert execution.run("print('x' * 10**6)") == "passed"


def test_a_long_program_arrives_whole():
    assert execution.run("x = 1\n" * 100_000 + "raise KeyError(x)") == "failed: KeyError: 1"


@pytest.mark.parametrize("error", [None, RecursionError, OSError])
def test_a_folder_that_cannot_be_removed_stops_no_scoring(error, tmp_path, monkeypatch):
    """A thousand folders in each other are more than shutil.rmtree can take."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if error:
        monkeypatch.setattr(execution.os, "scandir", raising(error))
    assert execution.run("import os, posix\nos.makedirs('a/b')\nposix.chmod('a', 0)") == "passed"


def raising(error):
    def function(*_, **__):
        raise error

    return function


def test_a_program_sees_neither_the_environment_nor_the_working_directory(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    program = (
        "import os, sys\n"
        "assert 'HF_TOKEN' not in os.environ\n"
        "assert os.listdir('.') == []\n"
        "assert '' not in sys.path and '/somewhere' not in sys.path"
    )
    assert execution.run(program) == "passed"


def test_the_same_program_has_the_same_score():
    """Sets are ordered by hashes, which Python draws anew in every process."""
    program = "raise ValueError(list({'a', 'b', 'c', 'd', 'e', 'f'}))"
    assert len({execution.run(program) for _ in range(3)}) == 1


def test_children_of_a_program_die_with_it(tmp_path):
    """A child would write after the program's end; by then it is gone with its group."""
    started, late = tmp_path / "started", tmp_path / "late"
    child = f"import time; open({str(started)!r}, 'w'); time.sleep(0.4); open({str(late)!r}, 'w')"
    start = (
        "import multiprocessing.util as util, os, sys, time\n"
        f"child = util.spawnv_passfds(sys.executable.encode(), [b'python', b'-c', {child.encode()!r}], [])\n"
    )
    assert execution.run(start + "os.waitpid(child, 0)") == "passed"
    assert late.exists()  # a child can write, if the program waits for it
    started.unlink(), late.unlink()
    wait = f"while not os.path.exists({str(started)!r}): time.sleep(0.01)"
    assert execution.run(start + wait) == "passed"
    time.sleep(0.6)
    assert started.exists() and not late.exists()
