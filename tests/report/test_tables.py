"""Tables of the terminal: one rule for times, ratios by turn, labels as text."""

import re

import pytest
from rich.console import Console

from unmask.records.summary import summarise
from unmask.report.listing import markdown
from unmask.report.tables import print_table, summary_table
from unmask.report.trace import Trace, closing_line
from unmask.report.tradeoff import tradeoff


def documents(n=20, session="0a1b2c3d", **changes):
    """Answers of 10 tokens; every other turn of five is slow."""
    return [
        {
            "doc_id": i,
            "repeat": 0,
            "task": "toy",
            "metric": "exact_match,strict",
            "prompt_length": 10,
            "ids": [9] * 10,
            "commits": [i // 2 for i in range(10)],
            "useful": 10,
            "forwards": {"denoiser": 5},
            "positions": {"denoiser": 50},
            "seconds": 3.0 if i // 5 % 2 else 1.0,
            "max_new_tokens": 90,
            "batch_size": 1,
            "batch": i,
            "exact": None,
            "session": session,
            "commit": "0123456789ab",
            "machine": "here",
            "correct": 1.0,
            "extraction_failed": False,
        }
        | changes
        for i in range(n)
    ]


def faster(scored, times):
    return [sample | {"seconds": sample["seconds"] / times} for sample in scored]


def printed(runs, device="cpu", width=140):
    console = Console(width=width, record=True)
    table = summary_table({name: summarise(scored) for name, scored in runs.items()}, runs, device)
    print_table(table, console)
    return console.export_text()


def row_of(text, label):
    return next(line for line in text.splitlines() if line.strip().startswith(label)).split()


def test_ratios_to_the_first_setting_stand_before_tokens_a_second():
    slow = documents()
    text = printed({"slow": slow, "fast": faster(slow, 2)})
    assert row_of(text, "slow")[-2:] == ["1", "5"] and row_of(text, "fast")[-2:] == ["2.00", "10"]
    assert "[2.00, 2.00]" in text, "turns are paired: the machine's drift is in both"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"session": "ffffffff"}, "they did not answer in turns with the others"),
        ({"session": None}, "on a CPU they compare only between settings that answer in turns"),
        ({"session": None, "machine": "there"}, "answer in turns"),
        ({"commit": "ba9876543210"}, "runs of other commits"),
    ],
)
def test_speeds_that_do_not_compare_are_not_printed_side_by_side(other, reason):
    text = printed({"a": documents(), "b": documents(**other)})
    assert row_of(text, "a")[-1] == row_of(text, "b")[-1] == "-"
    assert "Times of 2 of 2 settings are left out" in text and reason in " ".join(text.split())


def test_on_a_gpu_times_compare_without_turns():
    text = printed({"a": documents(session=None), "b": documents(session=None)}, device="cuda")
    assert row_of(text, "a")[-1] == row_of(text, "b")[-1] == "5" and "left out" not in text


def test_one_setting_has_its_speed():
    assert row_of(printed({"a": documents(session=None)}), "a")[-1] == "5"


def test_settings_of_several_tasks_have_ratios_within_their_own():
    chain = [sample | {"task": "chain"} for sample in documents()]
    runs = {"a": documents(), "b": chain, "c": faster(chain, 4)}
    assert row_of(printed(runs), "c")[-2:] == ["4.00", "20"]


@pytest.mark.parametrize("label", ["[/b]", "[bold]x[/bold]", "[link=file:///x]y[/link]"])
def test_a_label_is_text_whatever_it_holds(label, tmp_path):
    assert label in printed({label: documents()})


def test_a_label_in_markdown_ends_no_cell_and_opens_no_tag():
    assert markdown("a | b\n<script>") == "a \\| b &lt;script>"


def test_a_dollar_in_a_label_is_no_formula(tmp_path):
    tradeoff({r"$\frac{": summarise(documents())}, tmp_path / "a.svg", "note $x")
    assert r"$\frac{" in (tmp_path / "a.svg").read_text()


def test_the_tradeoff_names_the_other_models_forwards_and_no_speeds_that_do_not_compare(tmp_path):
    both = documents(forwards={"denoiser": 5, "auxiliary": 10}, positions={"denoiser": 50, "auxiliary": 90})
    for session, shown in (("0a1b2c3d", True), ("ffffffff", False)):
        runs = {"one": documents(session=session), "two": both}
        tradeoff({name: summarise(found) for name, found in runs.items()}, tmp_path / "a.svg", "")
        text = (tmp_path / "a.svg").read_text()
        assert "2.0 auxiliary forwards a step" in text and ("5 tokens/s" in text) == shown


def test_the_demo_puts_no_seconds_side_by_side():
    line = closing_line([Trace("a", [None], steps=3, seconds=1.5), Trace("b", [None], steps=9, seconds=2.5)])
    assert "a: 3 steps; b: 9 steps" in line and "1.5" not in line and "2.5" not in line


def test_a_terminal_of_80_columns_cuts_no_number():
    forwards = {"forwards": {"denoiser": 5, "auxiliary": 7}, "positions": {"denoiser": 50, "auxiliary": 70}}
    slow = documents(**forwards, exact=True)
    runs = {"a decoder with many settings on a model of some name": slow, "fast": faster(slow, 2)}
    wide, narrow = printed(runs), printed(runs, width=80)
    assert max(map(len, narrow.splitlines())) <= 80 and "…" not in narrow
    numbers = r"\[[\d., ]+\]|\d+ of \d+|(?:denoiser|auxiliary) [\d.]+|[\d.]{3,}"
    assert sorted(re.findall(numbers, wide)) == sorted(re.findall(numbers, narrow))
    assert narrow.count("fast") == 2 and wide.count("fast") == 1, "each part names its rows"
