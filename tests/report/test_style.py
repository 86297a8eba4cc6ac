"""Names that stay apart, figure 1, and the learning curve."""

from io import StringIO
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from unmask.paths import ROOT
from unmask.report.learning import learning_curve, learning_curves
from unmask.report.style import DECODERS, Colours, mark_of, name_points, plt, spread_names
from unmask.report.trace import Trace, draw

CURVE = """step,tokens,seconds,loss,lr,accuracy
1,1000000,1,2.0,0.1,
2,2000000,2,1.5,0.1,0.5
3,3000000,3,1.2,0.1,0.64
"""


def test_every_decoder_has_a_colour_and_a_mark_that_no_other_has():
    shipped = {path.stem for path in (ROOT / "eval_config" / "decoder").glob("*.yaml")}
    assert shipped <= DECODERS.keys() and len(set(DECODERS.values())) == len(DECODERS)
    for one, other in combinations(sorted(shipped), 2):
        apart = np.subtract(to_rgb(DECODERS[one]), to_rgb(DECODERS[other]))
        assert np.linalg.norm(apart) > 0.35 or mark_of(one) != mark_of(other), (one, other)


def test_a_new_decoder_gets_a_colour_of_its_own():
    known = Colours(DECODERS)
    new = [known[name] for name in ("mine", "yours", "mine")]
    assert new[0] == new[2] != new[1] and not set(new) & set(DECODERS.values())


def test_names_of_points_cover_neither_each_other_nor_a_point_nor_a_line():
    figure, axes = plt.subplots(figsize=(4, 4))
    x, y = [1, 1.02, 1.04, 9], [50, 51, 49, 50]
    for point in zip(x, y, strict=True):
        axes.plot(*point, "o")
    axes.plot([1, 9], [50, 50])
    name_points(axes, x, y, ["R=0.1 W=16", "R=0.1 W=32", "R=0.3 M=8", "K=1"], ["k"] * 4)
    axes.text(5, 50.5, "a remark")
    spread_names(figure)
    boxes = [Text.get_window_extent(name) for name in axes.texts[:4]]
    points = axes.transData.transform(list(zip(x, y, strict=True)))
    line = axes.transData.transform([(1 + i / 10, 50) for i in range(81)])
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.count_contains(points) for box in boxes)
    assert not any(box.count_contains(line) for box in boxes)
    plt.close(figure)


def test_a_trace_knows_the_step_of_every_token(tmp_path):
    trace = Trace("apd", [None] * 4)
    trace.commit([2], ["c\n"])
    assert trace.cells() == [("·", -1), ("·", -1), ("c\n", 0)]
    trace.commit([0, 1], ["a$", " b"])
    assert trace.cells() == [("a$", 1), (" b", 1), ("c\n", 0)] and trace.steps == 2
    draw([trace], "why?", tmp_path / "figure.png", "one answer")
    assert (tmp_path / "figure.png").exists() and "one answer" in (tmp_path / "figure.svg").read_text()


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """drawn(n) -> the panels."""
    monkeypatch.setattr(plt, "close", lambda figure: None)

    def draw(n):
        learning_curve(pd.read_csv(StringIO(CURVE)), tmp_path / "curve.png", n)
        return plt.gcf().axes

    yield draw
    monkeypatch.undo()
    plt.close("all")


def test_accuracies_have_n_and_wilsons_interval(drawn):
    axes = drawn(50)[1]
    assert axes.get_title() == "n = 50, bands: 95% intervals"
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(36.6, abs=0.1) and heights.max() == pytest.approx(75.9, abs=0.1)


def test_curves_of_several_models_are_rows_of_one_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(plt, "close", lambda figure: None)
    curve = pd.read_csv(StringIO(CURVE))
    learning_curves({"one": (curve, 50), "two": (curve.drop(columns="accuracy"), None)}, tmp_path / "all.png")
    axes = plt.gcf().axes
    monkeypatch.undo()
    plt.close("all")
    assert (tmp_path / "all.png").stat().st_size > 5_000
    assert [axis.get_title() for axis in axes[::3]] == ["one", "two"]
    assert [axis.axison for axis in axes] == [True, True, False, True, False, False]


def test_a_curve_of_unknown_n_says_so(drawn):
    axes = drawn(None)[1]
    assert "not recorded" in axes.get_title() and not axes.collections
