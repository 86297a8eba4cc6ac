"""One command on several cards: a process for each answers a shard on it.

The process that starts them computes nothing. It holds the record that the shards are joined into, so that a
second command on the same run is refused, and shows one progress bar.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import torch

from unmask.configuration.sweeps import key_of, settings
from unmask.evaluation.evaluation import Evaluation
from unmask.evaluation.several import distinct
from unmask.models.resources import check_device, choose_device
from unmask.progress import BAR_ELSEWHERE, progress_bar
from unmask.records.reading import SAMPLES

VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK"}  # which devices a process sees


def taken_out(given: Sequence[str], key: str) -> tuple[list[str], str | None]:
    """The words of a command without those of a key, and the last value that they gave; null is None."""
    values = [word.partition("=")[2] for word in given if key_of(word) == key]
    rest = [word for word in given if key_of(word) != key]
    return rest, values[-1] if values and values[-1] != "null" else None


def cards_of(gpus: str, device: str) -> list[dict[str, str]]:
    """The environment in which a process sees one card alone, for each card that `gpus` takes: all, or the
    first so many of those that this process sees.

    ValueError where there are not so many, or `device` names a CPU or one card.
    """
    chosen = choose_device(device)
    if chosen.type not in VISIBLE or chosen.index is not None:
        raise ValueError(f"gpus={gpus}: needs device=auto, cuda or xpu on a machine with cards, not {chosen}")
    check_device(chosen)
    count = torch.accelerator.device_count()
    if gpus != "all" and not (gpus.isascii() and gpus.isdigit() and 1 <= int(gpus) <= count):
        raise ValueError(
            f"gpus={gpus}: must be all, or a number from 1 to the {count} cards that are visible"
        )
    variable = VISIBLE[chosen.type]
    names = os.environ.get(variable) or ",".join(map(str, range(count)))
    return [{variable: name} for name in names.split(",")[: count if gpus == "all" else int(gpus)]]


def decode_on_cards(given: Sequence[str], gpus: str) -> None:
    """Answer on as many cards what the records of a command's settings lack; scoring is for who joins them.

    given: the command's words without gpus=. ChildProcessError where a process ends before its work, after
    the others are done: what was finished is kept.
    """
    for key in ("shard", "show"):
        if taken_out(given, key)[1] is not None:
            raise ValueError(f"{key}=: gpus= gives a shard of the documents to each card; remove one of them")
    cards = cards_of(gpus, taken_out(given, "device")[1] or "auto")
    configs = settings(given)
    if any(cfg.task.yaml for cfg in configs):
        raise ValueError("gpus= is for tasks that are answered, not for those scored by likelihoods")
    evaluations = distinct(map(Evaluation, configs))
    with ExitStack() as held:
        for evaluation in evaluations:
            held.enter_context(evaluation.run)
            evaluation.gather()  # of other numbers of shards, too
            if evaluation.missing:
                evaluation.run.claim()  # what auto means is settled for all cards
        _answer(given, cards, evaluations)


def _answer(words: Sequence[str], cards: Sequence[dict[str, str]], evaluations: Sequence[Evaluation]) -> None:
    """Start a process for each card whose shard lacks answers, and wait for all of them."""
    count, work = len(cards), {}
    for number, card in enumerate(cards, 1):
        shares = [(each, each.requests[number - 1 :: count]) for each in evaluations]
        if any(each.lm.key(request) not in each.run.done for each, share in shares for request in share):
            work[f"{number}/{count}"] = card
    if not work:
        return
    answers = Lines(
        [each.shards / shard.replace("/", "-of-") / SAMPLES for each in evaluations for shard in work]
    )
    total = sum(len(evaluation.requests) for evaluation in evaluations)
    there = total - sum(len(evaluation.missing) for evaluation in evaluations)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the cards' processes end, too
    with ExitStack() as stack:
        logs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in work]
        processes = []
        for (shard, card), log in zip(work.items(), logs, strict=True):
            processes.append(_start([*words, f"shard={shard}"], card, log))
            stack.callback(processes[-1].wait)
            stack.callback(processes[-1].terminate)
        with progress_bar() as bar:
            task = bar.add_task(f"{count} cards", total=total, completed=there)
            while any([process.poll() is None for process in processes]):
                time.sleep(0.5)
                bar.update(task, completed=there + answers.new())
        said = [_text(log) for log in logs]
    failed = []
    for (shard, card), process, lines in zip(work.items(), processes, said, strict=True):
        if code := process.returncode:
            end = f"signal {-code}" if code < 0 else f"exit code {code}"
            named = f"card {next(iter(card.values()))} (shard {shard}) ended with {end}"
            failed += ["\n  ".join([named, *lines[-5:]])]
    every = zip(processes, said, strict=True)
    notes = [line for process, lines in every for line in lines if process.returncode == 0]
    for note in dict.fromkeys(notes):
        print(note, file=sys.stderr)
    if failed:
        failed += ["What was finished is kept, and the same command goes on from there"]
        raise ChildProcessError("\n".join(failed))


def _start(words: Sequence[str], card: dict[str, str], log: IO[str]) -> subprocess.Popen:
    """This process's command with other words, on a card."""
    command = [sys.executable, *sys.orig_argv[1 : 1 - len(sys.argv)], *words]
    environment = os.environ | card | {BAR_ELSEWHERE: "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)


def _text(log: IO[str]) -> list[str]:
    log.seek(0)
    return log.read().splitlines()


class Lines:
    """Counts the lines of files that grow: answers on disk. What was read is not read again."""

    def __init__(self, files: Sequence[Path]):
        self.read, self.count, self.first = dict.fromkeys(files, 0), 0, 0
        self.first = self.new()

    def new(self) -> int:
        """How many came since the first count."""
        for path in self.read:
            if path.exists():
                with path.open("rb") as file:
                    file.seek(self.read[path])
                    added = file.read()
                self.read[path] += len(added)
                self.count += added.count(b"\n")
        return self.count - self.first
