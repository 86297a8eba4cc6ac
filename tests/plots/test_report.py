"""Figures and tables from records: what is chosen, joined and said. The records are written here, by the real
writer."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import report
from unmask.plots.knobs import FIGURES, _places, rows_of
from unmask.plots.pareto import aup, aups, front
from unmask.plots.style import name_points, plt, spread_names
from unmask.plots.trace import Trace, draw
from unmask.records import Run, environment
from unmask.records.table import label, table

WHERE = environment()


def record(
    root,
    decoder,
    accuracy,
    model="tiny_dream",
    cpu="this",
    task="gsm_symbolic",
    seconds=1.0,
    documents=20,
    **settings,
):
    """A finished run of `documents`, the first of them right."""
    config = {
        "model": {"name": model},
        "auxiliary": None,
        "task": {"name": task},
        "batch_size": 1,
        "device": "cpu, 2 threads",
        "dtype": "float32",
        "decoder": {"_target_": f"decoding.{decoder}.X"} | settings,
    }
    name = "-".join(map(str, [task, model, decoder, cpu, *settings.values()]))
    with Run.open(root / name, config, WHERE | {"cpu": cpu}) as run:
        for i in range(documents):
            run.append(
                {
                    "doc_id": i,
                    "repeat": 0,
                    "task": task,
                    "prompt_hash": "ab",
                    "seed": i,
                    "ids": [5, 6, 2],
                    "text": "",
                    "useful": 2,
                    "finish": "stop",
                    "steps": [3],
                    "forwards": {"denoiser": 1},
                    "positions": {"denoiser": 16},
                    "seconds": seconds,
                    "budget": 8,
                    "batch_size": 1,
                }
            )
        run.write_scores(
            {"doc_id": i, "repeat": 0, "correct": float(i < accuracy * documents), "extraction_failed": False}
            for i in range(documents)
        )
        run.update(status="finished")


@pytest.fixture
def results(tmp_path):
    root = tmp_path / "results"
    for k, accuracy in ((1, 0.8), (2, 0.5), (4, 0.2)):
        record(
            root, "leftright", accuracy, tokens_per_step=k, kv_window=None, max_lookahead=None, seconds=1 / k
        )
    for r, accuracy in ((0.1, 0.7), (0.9, 0.4)):
        record(root, "apd", accuracy, mixture_weight=r, kv_window=None, max_lookahead=None, seconds=0.3)
    for w, accuracy in ((16, 0.8), (1, 0.7)):
        record(root, "leftright", accuracy, tokens_per_step=1, kv_window=w, max_lookahead=None, seconds=0.5)
    return root


def words_of(picture) -> str:
    """What an SVG says, lines joined."""
    return " ".join(re.sub("<[^>]+>", " ", picture.read_text()).split())


@pytest.fixture
def run_report(run_command):
    return lambda *arguments: run_command(report, *arguments)


def test_every_figure_takes_its_runs_and_no_others(results):
    runs, samples = table(results)
    assert len(runs) == 7 and len(samples[runs.run[0]]) == 20
    assert rows_of(FIGURES["fig2"], runs).K.tolist() == [1, 2, 4]
    assert sorted(rows_of(FIGURES["fig3"], runs).R) == [0.1, 0.9]
    assert rows_of(FIGURES["fig4"], runs).empty
    fig5 = rows_of(FIGURES["fig5"], runs)
    assert set(fig5.series) == {"leftright K=1"} and sorted(fig5.W.fillna(-1)) == [-1, 1, 16]
    assert fig5.positions_per_answer.tolist() == [16, 16, 16]


def test_what_other_figures_left_over_is_no_curve(results):
    for w in (8, 4):
        record(results, "leftright", 0.8, tokens_per_step=1, kv_window=w, max_lookahead=None)
    for w in (16, 4):  # two points beside five: they came from figure 6
        record(results, "apd", 0.7, mixture_weight=0.6, kv_window=w, max_lookahead=None)
    assert set(rows_of(FIGURES["fig5"], table(results)[0]).series) == {"leftright K=1"}


def test_names_of_points_cover_neither_each_other_nor_a_point():
    figure, axes = plt.subplots(figsize=(3, 3))
    x, y = [1, 1.02, 1.04, 9], [50, 51, 49, 50]
    for point in zip(x, y, strict=True):
        axes.plot(*point, "o")
    name_points(axes, x, y, ["R=0.1 W=16", "R=0.1 W=32", "R=0.3 M=8", "K=1"], ["k"] * 4)
    spread_names(figure)
    boxes = [Text.get_window_extent(name) for name in axes.texts]
    points = axes.transData.transform(list(zip(x, y, strict=True)))
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.count_contains(points) for box in boxes)
    plt.close(figure)


def test_an_unfinished_run_is_not_drawn(results):
    run = next(results.rglob("run.json"))
    run.write_text(json.dumps(json.loads(run.read_text()) | {"status": "running"}))
    assert len(table(results)[0]) == 6


def test_report_writes_pictures_and_what_is_behind_them(results, tmp_path, run_report):
    code, out, err = run_report(f"results={results}", f"output={tmp_path / 'figures'}")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1]).keys() == {"fig2", "fig3", "fig5", "fig6", "tab1"}
    assert "fig4: no finished runs" in err and "scripts/fig4.sh" in err
    for name in ("fig2", "fig3", "fig5", "fig6"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 20_000
        words = words_of(tmp_path / "figures" / f"{name}.svg")
        assert "n = 20" in words and "tiny stand-in family" in words and "this, 2 threads" in words
    assert "published: Dream-7B APD" in words_of(tmp_path / "figures" / "fig3.svg")
    assert pd.read_csv(tmp_path / "figures" / "fig2.csv").accuracy.tolist() == [0.8, 0.5, 0.2]
    first = (tmp_path / "figures" / "fig3.svg").read_bytes()
    run_report(f"results={results}", f"output={tmp_path / 'figures'}", "figure=fig3")
    assert (tmp_path / "figures" / "fig3.svg").read_bytes() == first


def test_table_pairs_with_one_token_a_step(results, tmp_path, run_report):
    code, _, err = run_report(f"results={results}", f"output={tmp_path}", "figure=tab1")
    assert code == 0, err
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in (tmp_path / "tab1.md").read_text().splitlines()
    ]
    lines = {row[2]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    assert lines.keys() == {"apd R=0.1", "apd R=0.9", "leftright K=1"}
    assert lines["leftright K=1"]["difference to K = 1"] == ""
    assert lines["apd R=0.9"]["difference to K = 1"].startswith("-40.0 [")
    assert {name: line["Pareto"] for name, line in lines.items()} == {
        "leftright K=1": "yes",
        "apd R=0.1": "yes",
        "apd R=0.9": "",
    }
    assert r"\begin{tabular}" in (tmp_path / "tab1.tex").read_text()


def test_table_has_every_order_of_decoding(results):
    for decoder in ("random_order", "entropy", "confidence"):
        record(results, decoder, 0.5, steps=8)
    chosen = report.select("tab1", table(results)[0])
    assert set(chosen.decoder) == {"random_order", "entropy", "confidence", "leftright", "apd"}


def test_rows_from_different_hardware_are_not_joined(results):
    for k, accuracy in ((1, 0.9), (2, 0.6)):
        record(
            results, "leftright", accuracy, tokens_per_step=k, kv_window=None, max_lookahead=None, cpu="other"
        )
    rows = rows_of(FIGURES["fig2"], table(results)[0])
    assert rows.groupby("hardware").size().to_dict() == {"other, 2 threads": 2, "this, 2 threads": 3}
    assert "rows from different hardware are not joined" in report.note(rows, 0)


def test_bad_input(results, run_report, tmp_path):
    assert run_report("figure=fig9")[0] == 2
    code, _, err = run_report(f"results={tmp_path / 'none'}")
    assert code == 2 and "no such folder" in err
    damaged = next(results.rglob("samples.jsonl"))
    damaged.write_text("nonsense\n" + damaged.read_text())
    code, _, err = run_report(f"results={results}")
    assert code == 2 and "samples.jsonl:1" in err


def test_front():
    x, y = np.array([1, 2, 3, 3]), np.array([5, 5, 4, 3])
    assert front(x, y).tolist() == [False, True, True, False]
    assert front(x, y, higher=False).tolist() == [True, False, False, False]


def test_aup_by_hand_and_beside_the_published_values():
    weighed = [w * math.exp(-3 * (1 - w / 80)) for w in (78, 76)]
    assert aup([3, 1, 2], [76, 80, 78], 80) == pytest.approx(80 + (80 + weighed[0]) / 2 + sum(weighed) / 2)
    assert aup([1, 2, 9], [80, 78, 74.9], 80) == pytest.approx(
        80 + (80 + weighed[0]) / 2
    )  # more than 5 points down
    assert aup([2], [72.55], 74.68) == pytest.approx(2 * 72.55)
    # d3LLM's leaderboard, LLaDA rows on GSM8K: TPF, accuracy and AUP are published, the accuracy at TPF = 1
    # is not; it lies between LLaDA's own and the best of all.
    for tpf, accuracy, published in (
        (2.77, 74.68, 205.8),
        (2.88, 74.39, 213.8),
        (5.14, 72.63, 358.1),
        (9.11, 73.09, 637.7),
    ):
        low, high = (aup([1, tpf], [first, accuracy], 74.68) for first in (72.55, 74.68))
        assert low < published < high


def test_aup_of_runs_starts_at_one_token_a_step(results):
    found = aups(table(results)[0])
    where = ("tiny_dream", "gsm_symbolic", "this, 2 threads")
    assert found.keys() == {(*where, "leftright"), (*where, "apd")}
    assert (
        found[(*where, "apd")] == found[(*where, "leftright")] == pytest.approx(2 * 80)
    )  # tokens per step are all alike here


def test_places_of_a_knob_with_none():
    places, names = _places(pd.Series(["none", "16", 1]))
    assert places.tolist() == [2, 1, 0] and names == ["none", "16", "1"]
    places, names = _places(pd.Series([0.1, 0.9]))
    assert places.tolist() == [0.1, 0.9]


def test_label():
    settings = {
        "_target_": "unmask.decoding.random_order.X",
        "steps": 96,
        "schedule_kind": "origin",
        "temperature": 0.2,
    }
    assert label({"decoder": settings}) == "random_order T=96 schedule_kind=origin"


def test_a_trace_knows_the_step_of_every_token(tmp_path):
    trace = Trace("apd", [None] * 4)
    trace.commit([2], ["c\n"])
    assert trace.cells() == [("·", -1), ("·", -1), ("c\n", 0)]
    trace.commit([0, 1], ["a$", " b"])
    assert trace.cells() == [("a$", 1), (" b", 1), ("c\n", 0)] and trace.steps == 2
    draw([trace], "why?", tmp_path / "figure.png", "one answer")
    assert (tmp_path / "figure.png").exists() and "one answer" in (tmp_path / "figure.svg").read_text()
