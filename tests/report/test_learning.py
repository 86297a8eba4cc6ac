"""The learning curve: how many documents are behind its accuracies, and their intervals."""

import pytest

from unmask.report.learning import learning_curve
from unmask.report.style import plt

CURVE = """step,tokens,seconds,loss,lr,accuracy
1,1000000,1,2.0,0.1,
2,2000000,2,1.5,0.1,0.5
3,3000000,3,1.2,0.1,0.64
"""


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """drawn(n) -> the panels."""
    monkeypatch.setattr(plt, "close", lambda figure: None)

    def draw(n):
        (tmp_path / "curve.csv").write_text(CURVE)
        learning_curve(tmp_path / "curve.csv", tmp_path / "curve.png", n)
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


def test_a_curve_of_unknown_n_says_so(drawn):
    axes = drawn(None)[1]
    assert "not recorded" in axes.get_title() and not axes.collections
