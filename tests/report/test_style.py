"""Names that stay apart, and figure 1."""

from matplotlib.text import Text

from unmask.report.style import DECODERS, name_points, plt, spread_names
from unmask.report.trace import Trace, draw


def test_decoders_are_told_apart_by_their_colours():
    assert len(set(DECODERS.values())) == len(DECODERS)


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
