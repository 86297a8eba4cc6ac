"""Several evaluations in one process: each answers in turn, so that their times compare."""

import secrets
from collections.abc import Callable, Iterable, Sequence

from unmask.evaluation.evaluation import Evaluation
from unmask.progress import progress_bar

TURN = 5  # documents that one setting answers before the next one's turn


def distinct(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Without those whose run another one makes: two arms may coincide. One that takes turns stays."""
    first = sorted(evaluations, key=lambda evaluation: evaluation.cfg.interleave)
    return list({evaluation.folder: evaluation for evaluation in first}.values())


def answer(evaluations: Sequence[Evaluation], what: str) -> None:
    """Every evaluation answers what its record and its shards lack: those of `interleave` in turns, the
    others one after the other. Each is scored, or, where it is a shard, left to who joins it.

    One progress bar for all, named `what`. Models are let go of when no evaluation needs them any more.
    """
    turns = [evaluation for evaluation in evaluations if evaluation.cfg.interleave]
    if turns:
        turns[0].check_memory(*turns[1:])
    for evaluation in evaluations:
        evaluation.gather()
    total = sum(len(evaluation.requests) for evaluation in evaluations)
    missing = sum(len(evaluation.missing) for evaluation in evaluations)
    groups = [turns] * bool(turns) + [[one] for one in evaluations if not one.cfg.interleave]
    with progress_bar() as bar:
        task = bar.add_task(what, total=total, completed=total - missing)
        for group in groups:
            take_turns(group, lambda: bar.advance(task))
            for evaluation in group:
                if evaluation.cfg.shard:
                    evaluation.decode()
                else:
                    evaluation.score()
                evaluation.run.close()
                evaluation.lm.release()


def take_turns(evaluations: Sequence[Evaluation], advance: Callable[[], None]) -> None:
    """Every evaluation answers a few documents in turn (A B A B ...), so that a drift of the machine hits
    all.

    `advance` is called once a document. Every sample bears the session's number: times of settings that
    shared it compare.
    """
    session = secrets.token_hex(4) if sum(bool(e.missing) for e in evaluations) > 1 else None
    for evaluation in evaluations:
        evaluation.lm.session = session
    largest = max(evaluation.lm.batch_size for evaluation in evaluations)
    turn = -(-TURN // largest) * largest
    for start in range(0, max(len(evaluation.requests) for evaluation in evaluations), turn):
        for evaluation in evaluations:
            evaluation.lm.generate(evaluation.requests[start : start + turn], advance)
    for evaluation in evaluations:
        evaluation.lm.session = None
