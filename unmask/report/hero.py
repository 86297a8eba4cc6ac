"""Kind `hero`: accuracy over speed-up, a line per method with its name on it, one column wide.

Every setting against one token a forward (`Definition.baseline_arm`): above the ratio of useful tokens a
second, below that of estimated FLOPs a useful token, which no machine changes. Pale lines are published.
"""

from pathlib import Path

import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from unmask.records.collection import Collection
from unmask.report.definition import Hero
from unmask.report.measures import comparable
from unmask.report.style import DECODERS, MARKERS, caption, headline, name_points, plt, save, spread_names

WIDTH, HEIGHT = 3.3, 2.15  # inches: of the figure, of a panel
SPEED = "times the useful tokens/s of one token a forward"
WORK = "times fewer FLOPs a useful token (estimated)"


def draw(hero: Hero, found: Collection, published: pd.DataFrame, output: Path, note: str) -> None:
    """A panel per ratio. Without comparable times the first is left out."""
    rows = found.rows.dropna(subset="accuracy")
    base = rows[rows.arm == hero.baseline_arm].iloc[0]
    rows = rows.assign(work=base.flops_per_useful_token / rows.flops_per_useful_token)
    panels = {"speedup": SPEED} if comparable(rows)[0].all() else {}
    panels |= {"work": WORK}
    figure, grid = plt.subplots(len(panels), figsize=(WIDTH, HEIGHT * len(panels) + 1.1), squeeze=False)
    marks = dict(zip(dict.fromkeys(rows.model), MARKERS * 9, strict=False))
    for axes, (column, label) in zip(grid[:, 0], panels.items(), strict=True):
        top = 100 * base.accuracy
        axes.axhspan(top - hero.loss, top, color="0.93", zorder=0)
        if column == "speedup":
            for decoder, x, y in ghosts(hero, published):
                axes.plot(x, y, color=DECODERS[decoder], alpha=0.25, marker=".", zorder=1)
        for method, here in rows.groupby("arm", sort=False):
            _line(axes, method, here.sort_values(column), column, marks, top - hero.depth)
        axes.set(xscale="log", ylim=(top - hero.depth, min(top + hero.depth / 5, 102)), xlabel=label)
        axes.set_ylabel("accuracy (%)")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    headline(figure, hero.title)
    band = f"Grey band: at most {hero.loss:g} points below one token a forward."
    caption(figure, f"{band} {hero.ghost_words} {note}".replace("  ", " "))
    spread_names(figure)
    save(figure, output)


def ghosts(hero: Hero, published: pd.DataFrame) -> list[tuple[str, list[float], list[float]]]:
    """(decoder, speed-ups, accuracies in percent) of the published series, against the first point of the
    series that each is compared with."""
    found = []
    for decoder, (series, against) in hero.ghosts.items():
        theirs, first = (published[published.series == name] for name in (series, against))
        theirs, first = (some[some.task.str.startswith("gsm8k")] for some in (theirs, first))
        ratio = theirs.throughput_tok_s / first.throughput_tok_s.iloc[0]
        found.append((decoder, ratio.tolist(), (100 * theirs.accuracy).tolist()))
    return found


def _line(axes, method: str, here: pd.DataFrame, column: str, marks: dict, floor: float) -> None:
    """A method's settings in order of cost, bars in accuracy, its name beside the last one in sight."""
    x, y = here[column].astype(float), 100 * here.accuracy.astype(float)
    ends = [100 * pd.DataFrame(here.accuracy_interval.tolist(), here.index)[side] for side in (0, 1)]
    colour = DECODERS[here.decoder.iloc[0]]
    style = {"color": colour, "marker": marks[here.model.iloc[0]], "elinewidth": 0.5, "linewidth": 1.2}
    axes.errorbar(x, y, [y - ends[0], ends[1] - y], **style)
    seen = y[y > floor]
    if len(seen):
        name_points(axes, [x[seen.index[-1]]], [seen.iloc[-1]], [method.replace("_", " ")], [colour], size=8)
