"""Watch an answer appear, a colour per step:  python demo.py

    python demo.py compare=true                                # one token a step beside it
    python demo.py 'compare="model=tiny_qwen_large decoder=autoregressive"'   # or any other settings
    python demo.py decoder.mixture_weight=0.9 document=7
    python demo.py decoder=confidence decoder.steps=16         # not from left to right
    python demo.py 'prompt="Tom has 5 apples. ..."'
    python demo.py model=dream auxiliary=qwen_0.5b             # wants a GPU

The demo of a document is the answer that eval.py records for it. Masks within the canvas are faint dots.
Where stdout is no terminal the finished answers are printed, plain. `save=FILE.png` draws them (figure 1).
`python demo.py --help` lists every setting.
"""

import unmask  # noqa: F401, I001  (first: it quiets the libraries below)

import time
from dataclasses import replace

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from lm_eval.api.instance import Instance
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from unmask.configuration.command_line import door

from unmask.paths import ROOT
from unmask.decoding import Stop
from unmask.evaluation.evaluation import Evaluation
from unmask.report.trace import Trace, draw
from unmask.records import environment
from unmask.records.naming import label

STYLES = ["bright_cyan", "bright_yellow", "bright_green", "bright_magenta", "orange1", "deep_sky_blue1"]
FRAME = 0.05  # seconds between two pictures


@door("demo")
def main(cfg) -> None:
    evaluations = [Evaluation(cfg)]
    if cfg.compare:
        other = ["decoder=leftright"] if cfg.compare is True else str(cfg.compare).split()
        given = HydraConfig.get().overrides.task
        if any(setting.startswith("decoder=") for setting in other):
            # settings of the first decoder are not the other's
            given = [g for g in given if not g.lstrip("+").startswith("decoder")]
        evaluations.append(Evaluation(compose("demo", [*given, *other])))
    first = evaluations[0]
    if not 0 <= cfg.document < len(first.requests):
        raise ValueError(f"document={cfg.document} must be from 0 to {len(first.requests) - 1}")
    requests = [asked(evaluation) for evaluation in evaluations]
    question = cfg.prompt or str(first.requests[cfg.document].doc.get("question", ""))
    several = len({e.cfg.model.name for e in evaluations}) > 1
    titles = [e.label if several else label(e.identity) for e in evaluations]
    traces = [Trace(t, [None] * e.cfg.task.max_new_tokens) for t, e in zip(titles, evaluations, strict=True)]
    console = Console()
    stage = Stage(console, question, traces)
    once = Stop(match=lambda ids, known: 0)
    for evaluation, request in zip(evaluations, requests, strict=True):  # the clock is to show decoding
        prompts = evaluation.lm.prompts([request])
        evaluation.decoder.decode(
            evaluation.lm.models, prompts, evaluation.cfg.task.max_new_tokens, once, [0]
        )
    with stage:
        for evaluation, trace, request in zip(evaluations, traces, requests, strict=True):
            answer(evaluation, trace, request, stage.refresh)
    if not console.is_terminal:
        print(question)
        for trace in traces:
            pieces = "".join(piece for piece, step in trace.cells() if step >= 0)
            print(f"\n{trace.title}\n{pieces}\n{trace.footer}")
    if len(traces) > 1:
        print("; ".join(f"{trace.title}: {trace.steps} steps, {trace.seconds:.2f} s" for trace in traces))
    if cfg.save:
        names = [" + ".join(s.settings.name for s in e.sources.values()) for e in evaluations]
        stem = ", ".join(dict.fromkeys(names))
        family = " (tiny stand-in family)" if stem.startswith("tiny_") else ""
        hardware = f"{first.gpu or environment()['cpu']}, {first.identity['dtype']}"
        note = f"{stem}{family}, {hardware}. One colour a step (they repeat); one answer, no average."
        draw(traces, question, ROOT / cfg.save, note)
        print(f"figure: {cfg.save}")


def asked(evaluation: Evaluation) -> Instance:
    """The request that is answered: a document's, or one with a prompt of the user's own."""
    request = evaluation.requests[evaluation.cfg.document]
    if evaluation.cfg.prompt is not None:
        text = evaluation.lm.apply_chat_template([{"role": "user", "content": evaluation.cfg.prompt}])
        request = replace(request, arguments=(text, *request.arguments[1:]))
    return request


class Stage:
    """The picture in the terminal, drawn again as tokens come. Drawing stops the clock of what is shown."""

    def __init__(self, console: Console, question: str, traces: list[Trace]):
        self.console, self.question, self.traces, self.drawn = console, question, traces, 0.0
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None

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
        width = max(30, self.console.width // len(self.traces) - 2)
        panels = [
            Panel(Group(coloured(trace), Text(trace.footer, style="dim")), title=trace.title, width=width)
            for trace in self.traces
        ]
        return Group(Text(self.question, style="bold"), Columns(panels))


def coloured(trace: Trace) -> Text:
    text = Text()
    done = trace.seconds > 0
    for piece, step in trace.cells(None if done or not trace.steps else len(trace.pieces)):
        text.append(piece, style="grey37" if step < 0 else STYLES[step % len(STYLES)])
    return text


def answer(evaluation: Evaluation, trace: Trace, request: Instance, refresh) -> None:
    """Decode one request into a trace, calling `refresh` after every step."""
    shown, ids = 0.0, {}
    decode = evaluation.lm.tokenizer.decode

    def observe(row, positions: list[int], tokens: list[int]) -> None:
        nonlocal shown
        start = time.perf_counter()
        ids.update(zip(positions, tokens, strict=True))
        # Where all left of a token is known, its text is what it adds: half a character may stand in a token.
        pieces = []
        for position, token in zip(positions, tokens, strict=True):
            before = [ids[i] for i in range(max(0, position - 4), position) if i in ids]
            alone = len(before) < min(4, position)
            pieces.append(decode([token]) if alone else decode([*before, token]).removeprefix(decode(before)))
        trace.commit(positions, pieces)
        trace.footer = f"{trace.steps} steps"
        refresh()
        shown += time.perf_counter() - start

    lm = evaluation.lm
    (generation,) = lm.decoder.decode(
        lm.models, lm.prompts([request]), lm.max_new_tokens, lm.stop, [lm.seed_of(request)], observe
    )
    trace.seconds = generation.seconds - shown
    # The end token and what stands right of it is no answer.
    for position in range(generation.useful, len(trace.pieces)):
        trace.pieces[position], trace.step_of[position] = None, -1
    work = ", ".join(f"{count} {role} forwards" for role, count in generation.forwards.items())
    per_step = generation.useful / max(1, next(iter(generation.forwards.values())))
    trace.footer = (
        f"{generation.useful} tokens in {trace.steps} steps, {work}, {per_step:.1f} tokens a step, "
        f"{generation.useful / trace.seconds:.0f} tokens/s"
    )
    refresh(now=True)


if __name__ == "__main__":
    main()
