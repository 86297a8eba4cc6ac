"""Two runs side by side in the terminal: what sets them apart, what they cost, which answers changed."""

import os
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unmask.records import Run
from unmask.records.comparing import Pair, changed, check_same_prompts, common, compare
from unmask.records.identity import ABSENT, canonical, differences
from unmask.records.naming import label, main_model, telling
from unmask.records.summary import positions_per_useful_token, summarise
from unmask.report.tables import empty_table, forwards, print_table, with_interval

Scored = tuple[Run, list[dict]]  # a run and its documents, from `Run.scored`


def show(a: Scored, b: Scored, limit: int | None = None) -> dict:
    """Print run B against run A; returns the numbers, as plain JSON.

    limit: how many answers that became right are shown, and how many that became wrong; None = all.

    RecordError, before anything is printed, where the two cannot be paired: other tasks, metrics or prompts,
    or no document in common.
    """
    (run_a, scored_a), (run_b, scored_b) = a, b
    on_cpu = "cpu" in (run_a.config["device"], run_b.config["device"])
    change = compare(scored_a, scored_b, in_turns=on_cpu)
    check_same_prompts(scored_a, scored_b)
    summaries = [summarise(scored) for scored in common(scored_a, scored_b)]
    better, worse = changed(scored_a, scored_b)
    console = Console()
    for name, (run, scored) in (("A", a), ("B", b)):
        where = f"{main_model(run.config)['name']}, {run.config['task']['name']}"
        _say(console, f"{name}  {os.path.relpath(run.folder)}")
        _say(console, f"   {label(run.config)} on {where}, n = {len({s['doc_id'] for s in scored})}")
    differing = _differing(run_a.config, run_b.config)
    console.print(differing if differing.rows else "\nTheir settings do not differ.")
    print_table(_measures(*summaries, change), console)
    if void := change["speedup_void"]:
        _say(console, f"tokens/s do not compare: {void} (docs/sweeps.md says how settings take turns).")
    _answers(console, better, limit, "became right", "A, wrong", "B, right")
    _answers(console, worse, limit, "became wrong", "A, right", "B, wrong")
    a_numbers, b_numbers = (
        _numbers(run, summary, timed=not void) for run, summary in zip((run_a, run_b), summaries, strict=True)
    )
    return {"a": a_numbers, "b": b_numbers, "b_against_a": change}


def _differing(config_a: Mapping, config_b: Mapping) -> Table:
    """The settings in which two identities differ; a dash where one has no such setting."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("what differs", "A", "B"):
        table.add_column(name, overflow="fold")
    differing = differences(config_a, config_b)
    for key in telling(list(differing)):
        if key != "roles":  # the decoder's own
            table.add_row(key.removesuffix(".name"), *(Text(_value(value)) for value in differing[key]))
    return table


def _value(value: object) -> str:
    if value == ABSENT:
        return "-"
    return value if isinstance(value, str) else canonical(value)


def _measures(a: Mapping, b: Mapping, change: Mapping) -> Table:
    """Summaries of the same documents, and B against A (`comparing.compare`)."""
    table = empty_table(f"in both: n = {change['n']}", 28, ["A", "B", "B against A"])

    def both(name: str, form: str, ends_form: str, scale: float = 1) -> list[str]:
        return [with_interval(summary, name, form, ends_form, scale) for summary in (a, b)]

    def times(name: str) -> str:
        return with_interval(change, name, "{:.2f} times", "{:.2f}")

    gap = with_interval(change, "accuracy_difference", "{:+.1f} points", "{:+.1f}", scale=100)
    table.add_row("accuracy %", *both("accuracy", "{:.1f}", "{:.0f}", scale=100), gap)
    if change["n_scored"]:
        alone = str(change["worsened"]), str(change["improved"])
        table.add_row("right, and the other wrong", *alone, f"McNemar p = {change['p_value']:.2g}")
    if change["n_scored"] < change["n"]:
        table.add_row("can be scored in both", "", "", str(change["n_scored"]))
    table.add_row("no answer", str(a["extraction_failures"]), str(b["extraction_failures"]))
    steps = both("tokens_per_step", "{:.2f}", "{:.2f}")
    table.add_row("useful tokens per step", *steps, times("tokens_per_step_ratio"))
    table.add_row("forwards per answer", forwards(a), forwards(b))
    fed = ["-" if each is None else f"{each:,.1f}" for each in map(positions_per_useful_token, (a, b))]
    table.add_row("positions per useful token", *fed, times("positions_ratio"))
    # times that do not compare do not stand side by side either
    clocks = ["-", "-"] if change["speedup_void"] else both("tokens_per_second", "{:.0f}", "{:.0f}")
    table.add_row("tokens/s (ratio by turn)", *clocks, times("speedup"))
    table.add_row("same answer, id for id", "", "", f"{change['identical']} of {change['n']}")
    return table


def _answers(
    console: Console, pairs: Sequence[Pair], limit: int | None, what: str, first: str, second: str
) -> None:
    """The answers of both runs to the first documents that changed so, and what was read from them."""
    if not (shown := pairs[:limit]):
        return
    more = f" (the first {len(shown)}; changed=null shows all)" if len(shown) < len(pairs) else ""
    _say(console, f"\n{len(pairs)} {what}{more}:")
    table = Table(box=box.HORIZONTALS, padding=(0, 1, 0, 0), show_lines=True)
    table.add_column("document", max_width=20, overflow="fold")
    for heading in (first, second):
        table.add_column(heading, ratio=1, overflow="fold")
    for pair in shown:
        document = Text(f"{pair[0]['task']} {pair[0]['doc_id']}\n\ntarget: {pair[0]['target']}")
        table.add_row(document, *map(_answer, pair))
    console.print(table)


def _answer(sample: Mapping) -> Text:
    read = None if sample["extraction_failed"] else sample["extracted"]
    return Text(f"{sample['text'].strip()}\n\nread: {'nothing' if read is None else read}")


def _say(console: Console, words: str) -> None:
    console.print(words, markup=False, highlight=False, soft_wrap=True)


def _numbers(run: Run, summary: Mapping, timed: bool) -> dict:
    """Of one run, what its column says."""
    names = ["accuracy", "accuracy_interval", "extraction_failures", "tokens_per_step"]
    names += ["tokens_per_step_interval", "forwards_per_answer"]
    names += ["tokens_per_second", "tokens_per_second_interval"] if timed else []
    fed = {"positions_per_useful_token": positions_per_useful_token(summary)}
    return {"run": os.path.relpath(run.folder)} | {name: summary[name] for name in names} | fed
