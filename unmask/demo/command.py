"""What demo.py does: one document, answered before your eyes, by one setting or by two at once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from omegaconf import ListConfig
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from unmask.configuration.composition import composed
from unmask.configuration.settings import check_effects
from unmask.configuration.sweeps import key_of
from unmask.decoding import Stop
from unmask.demo.race import Pass, Race
from unmask.evaluation.evaluation import Evaluation
from unmask.paths import ROOT, may_be_file
from unmask.records import environment
from unmask.records.naming import label
from unmask.report.trace import Trace, closing_line, draw

RACE = (  # what `demo.py` alone shows
    "decoder=leftright",
    "slow=4",
    'compare=["decoder=apd decoder.mixture_weight=0.0",'
    '"model=tiny_d2f_dream decoder=d2f decoder.block_length=8"]',
)
STYLES = ["bright_cyan", "bright_yellow", "bright_green", "bright_magenta", "orange1", "deep_sky_blue1"]
FRAME = 0.05  # seconds between two pictures


def demo(given: Sequence[str]) -> None:
    """The demonstration that the words of a command name; without words, a race of three decoders."""
    given = given or RACE
    cfg = composed("demo", given)
    compared = cfg.compare if isinstance(cfg.compare, ListConfig) else [cfg.compare] * bool(cfg.compare)
    settings = [list(given), *(others(given, each) for each in compared)]
    check_effects("demo", dict.fromkeys(word for words in settings for word in words), settings)
    evaluations = [Evaluation(composed("demo", words)) for words in settings]
    first = evaluations[0]
    if type(cfg.document) is not int or not 0 <= cfg.document < len(first.requests):
        raise ValueError(f"document={cfg.document} must be from 0 to {len(first.requests) - 1}")
    if not cfg.slow >= 1:
        raise ValueError(f"slow={cfg.slow}: must be at least 1, as in slow=4: four times slower than it is")
    if cfg.save is not None and (Path(cfg.save).suffix != ".png" or not may_be_file(ROOT / cfg.save)):
        raise ValueError(f"save={cfg.save[:100]}: must be the name of a picture, as in save=answer.png")
    requests = [request_of(evaluation) for evaluation in evaluations]
    question = cfg.prompt or str(first.requests[cfg.document].doc.get("question", ""))
    several = len({e.cfg.model.name for e in evaluations}) > 1
    titles = [e.label if several else label(e.identity) for e in evaluations]
    traces = [Trace(t, [None] * e.cfg.task.max_new_tokens) for t, e in zip(titles, evaluations, strict=True)]
    console = Console()
    stage = Stage(console, question, traces, cfg.slow)
    for evaluation, request in zip(evaluations, requests, strict=True):
        warm_up(evaluation, request)
    with stage:
        racers = zip(evaluations, traces, requests, strict=True)
        Race([partial(answer, *racer, stage.refresh) for racer in racers], stage.slow).run()
    if not console.is_terminal:
        print(question)
        for trace in traces:
            pieces = "".join(piece for piece, step in trace.cells() if step >= 0)
            print(f"\n{trace.title}\n{pieces}\n{trace.footer}")
    if len(traces) > 1:
        print(closing_line(traces))
    if cfg.save:
        save(evaluations, traces, question, ROOT / cfg.save)
        print(f"figure: {cfg.save}")


def others(given: Sequence[str], compare: object) -> list[str]:
    """The words of the second setting: the first one's, with what `compare` says; true is one token a
    step."""
    words = ["decoder=leftright"] if compare is True else str(compare).split()
    if any(key_of(word) == "decoder" for word in words):
        # settings of the first decoder are not the other's
        given = [word for word in given if key_of(word).partition(".")[0] != "decoder"]
    return [*given, *words]


def request_of(evaluation: Evaluation) -> Instance:
    """The request that is answered: a document's, or one with a prompt of the user's own."""
    request = evaluation.requests[evaluation.cfg.document]
    if evaluation.cfg.prompt is not None:
        text = evaluation.lm.apply_chat_template([{"role": "user", "content": evaluation.cfg.prompt}])
        request = replace(request, arguments=(text, *request.arguments[1:]))
    return request


def warm_up(evaluation: Evaluation, request: Instance) -> None:
    """A step off the clock, which is to show decoding."""
    once = Stop(match=lambda ids, known: 0)
    prompts = evaluation.lm.prompts([request])
    evaluation.decoder.decode(evaluation.lm.models, prompts, evaluation.cfg.task.max_new_tokens, once, [0])


def answer(evaluation: Evaluation, trace: Trace, request: Instance, refresh: Callable, wait: Pass) -> None:
    """Decode one request into a trace, letting others go on after every step."""
    torch.set_num_threads(evaluation.cfg.threads)  # of this thread
    lm, ids = evaluation.lm, {}
    decode, resumed = lm.tokenizer.decode, time.perf_counter()

    def observe(row, positions: list[int], tokens: list[int | None]) -> None:
        nonlocal resumed
        worked = time.perf_counter() - resumed
        ids.update(zip(positions, tokens, strict=True))
        # Where all left of a token is known, its text is what it adds: half a character may stand in a token.
        pieces = []
        for position, token in zip(positions, tokens, strict=True):
            if token is None:
                pieces.append(None)
                continue
            before = [ids[i] for i in range(max(0, position - 4), position) if ids.get(i) is not None]
            alone = len(before) < min(4, position)
            pieces.append(decode([token]) if alone else decode([*before, token]).removeprefix(decode(before)))
        trace.commit(positions, pieces)
        trace.seconds += worked
        trace.footer = f"{trace.steps} steps, {trace.seconds:.2f} s"
        refresh()
        wait(worked)
        resumed = time.perf_counter()

    (generation,) = lm.decoder.decode(
        lm.models, lm.prompts([request]), lm.max_new_tokens, lm.stop, [lm.seed_of(request)], observe
    )
    trace.finished = True
    # The end token and what stands right of it is no answer.
    for position in range(generation.useful, len(trace.pieces)):
        trace.pieces[position], trace.step_of[position] = None, -1
    forwards = ", ".join(f"{count} {role} forwards" for role, count in generation.forwards.items())
    per_step = generation.useful / max(1, next(iter(generation.forwards.values())))
    revoked = f"{len(generation.lost)} taken back, " if generation.lost else ""
    trace.footer = (
        f"{generation.useful} tokens in {trace.steps} steps, {forwards}, {per_step:.1f} tokens a step, "
        f"{revoked}{trace.seconds:.2f} s"
    )
    refresh(now=True)


def save(evaluations: list[Evaluation], traces: list[Trace], question: str, file: Path) -> None:
    """Draw the finished answers."""
    names = [" + ".join(s.settings.name for s in e.sources.values()) for e in evaluations]
    stem, first = ", ".join(dict.fromkeys(names)), evaluations[0]
    family = " (tiny stand-in family)" if stem.startswith("tiny_") else ""
    hardware = f"{first.gpu or environment()['cpu']}, {first.identity['dtype']}"
    note = f"{stem}{family}, {hardware}. One colour a step (they repeat); one answer, no average."
    draw(traces, question, file, note)


class Stage:
    """The picture in the terminal, drawn again as tokens come. Drawing stops the clock of what is shown."""

    def __init__(self, console: Console, question: str, traces: list[Trace], slow: float):
        self.console, self.question, self.traces, self.drawn = console, question, traces, 0.0
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self.slow = slow if self.live else 1.0  # nobody watches what is no terminal

    def __enter__(self) -> "Stage":
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(self, *error) -> None:
        if self.live:
            self.refresh(now=True)
            self.live.__exit__(*error)

    def refresh(self, now: bool = False) -> None:
        if self.live and (now or time.perf_counter() - self.drawn > FRAME):
            self.live.update(self.picture(), refresh=True)
            self.drawn = time.perf_counter()

    def picture(self) -> Group:
        width = max(20, self.console.width // len(self.traces) - 2)
        panels = [
            Panel(
                Group(coloured(trace), Text(trace.footer, style="dim")), title=Text(trace.title), width=width
            )
            for trace in self.traces
        ]
        motion = [Text(f"{self.slow:g} times slower than it is", style="dim")] * (self.slow > 1)
        return Group(Text(self.question, style="bold"), Columns(panels), *motion)


def coloured(trace: Trace) -> Text:
    """The tokens of a trace, a colour per step; masks are dots while it grows."""
    text = Text()
    for piece, step in trace.cells(None if trace.finished or not trace.steps else len(trace.pieces)):
        text.append(piece, style="grey37" if step < 0 else STYLES[step % len(STYLES)])
    return text
