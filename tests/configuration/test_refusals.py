"""What a command says and returns when the system refuses something."""

import errno
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import pytest

from unmask.configuration import command_line
from unmask.configuration.command_line import refusals
from unmask.paths import ROOT


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_refusal_of_the_system_is_one_line_and_code_1(capsys, code):
    with pytest.raises(SystemExit) as ended, refusals():
        raise OSError(code, os.strerror(code), "/results/run.json")
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: /results/run.json: {os.strerror(code)}\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_closed_pipe_ends_a_command_quietly(stream):
    code = (
        "import sys\nfrom unmask.configuration.command_line import refusals\n"
        f"with refusals():\n for i in range(10**6): print(i, file=sys.{stream})"
    )
    other = "stderr" if stream == "stdout" else "stdout"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    getattr(process, stream).readline()
    getattr(process, stream).close()
    assert getattr(process, other).read() == b"" and process.wait() == 1
    getattr(process, other).close()


def test_a_launchers_worker_that_dies_is_one_message(monkeypatch, capsys):
    def dies(*_):
        raise BrokenProcessPool("A worker process was unexpectedly terminated")

    monkeypatch.setattr(command_line, "_hydra", dies)
    monkeypatch.setattr(sys, "argv", ["eval.py", "-m", "decoder.mixture_weight=0.1,0.5"])
    with pytest.raises(SystemExit) as end:
        command_line.command("eval", "", sweeps=True)(lambda given, single=False: None)()
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("error: a worker process of the launcher died")
