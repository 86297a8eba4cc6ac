"""One visual language for all figures: a colour per decoder that everybody can tell apart (Okabe and Ito), a
mark per model, quiet axes, names beside the lines, captions that say what was measured."""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]


class Colours(dict):
    """Decoder -> colour. One that is not here gets one of UNNAMED, its own as long as these last."""

    def __missing__(self, decoder: str) -> str:
        self[decoder] = UNNAMED[len(self) % len(UNNAMED)]
        return self[decoder]


UNNAMED = ["#7F7F7F", "#99BB88", "#BB0011", "#774444", "#99BB00"]
DECODERS = Colours(
    {
        "leftright": "#0072B2",
        "apd": "#D55E00",
        "autoregressive": "#000000",
        "confidence": "#009E73",
        "entropy": "#CC79A7",
        "random": "#E69F00",
        "margin": "#56B4E9",
        "threshold": "#117733",
        "factor": "#882255",
        "dparallel": "#AA4499",
        "entropy_bound": "#999933",
        "d2f": "#332288",
        "multiblock": "#661100",
        "dflash": "#0099AA",
        "speculative": "#DDAA33",
        "wino": "#0000FF",
        "saber": "#FF11FF",
        "klass": "#00CC00",
        "credit": "#FF0055",
        "hierarchy": "#FFCC99",
        "p2": "#443355",
        "prophet": "#886644",
        "slowfast": "#8855FF",
        "pc_sampler": "#FF0000",
        "freedave": "#AA99FF",
        "lopa": "#774400",
        "joint_threshold": "#77CC66",
        "dkv": "#EE77FF",
        "blocks": "#CC5555",
        "llada": "#FF0099",
        "transformers": "#005544",
        "transformers_speculative": "#0077FF",
        "transformers_diffusion": "#0000AA",
        "transformers_dflash": "#9900AA",
    }
)
PUBLISHED = "0.35"  # what others measured
MARKERS = "osD^vP*X"  # models
DECODER_MARKERS = "osD^vP*Xh<>pd8"  # decoders, where a panel is of one model
LEADER = {
    "arrowstyle": "-",
    "color": "0.7",
    "linewidth": 0.5,
    "shrinkA": 0,
    "shrinkB": 3,
}  # from a name to its point
DASHES = ["-", "--", ":", "-."]  # of lines in one colour

plt.rcParams.update(
    {
        "axes.prop_cycle": plt.cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "axes.edgecolor": "0.5",
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "xtick.color": "0.3",
        "ytick.color": "0.3",
        "grid.color": "0.92",
        "lines.linewidth": 1.5,
        "lines.markersize": 3.5,
        "font.size": 8,
        "text.parse_math": False,  # a label with a $ is a label
        "figure.constrained_layout.use": True,
        "savefig.dpi": 300,
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "parallel decoding",  # the same figure, the same file
    }
)


def mark_of(decoder: str) -> str:
    """A decoder's mark, where panels are of one model."""
    order = list(DECODERS) if decoder in DECODERS else [*DECODERS, decoder]
    return DECODER_MARKERS[order.index(decoder) % len(DECODER_MARKERS)]


def styles(decoders: Sequence[str]) -> list[dict]:
    """Colour and line style of each line of a panel: the decoder's colour, and dashes where it comes
    again."""
    seen = Counter()
    found = []
    for decoder in decoders:
        found.append({"color": DECODERS[decoder], "linestyle": DASHES[seen[decoder] % len(DASHES)]})
        seen[decoder] += 1
    return found


def name_points(
    axes,
    x: Sequence[float],
    y: Sequence[float],
    names: Sequence[str],
    colours: Sequence[str],
    size: float = 6.5,
) -> None:
    """Write a name beside each point. `spread_names` finds it a free place, once the figure is laid out.
    size: of the letters, in points."""
    for *point, name, colour in zip(x, y, names, colours, strict=True):
        axes.annotate(
            name,
            point,
            xytext=(0, 0),
            textcoords="offset points",
            color=colour,
            fontsize=size,
            ha="center",
            va="center",
            arrowprops=LEADER,
        )


def spread_names(figure) -> None:
    """Put every name of `name_points` where it covers no other name, no point and, if it can, no line.

    As near to its own point as there is room.
    """
    figure.draw_without_rendering()
    around = [(np.cos(angle), np.sin(angle)) for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False)]
    pixel = figure.dpi / 72  # of a point
    for axes in figure.axes:
        frame, taken = axes.get_window_extent(), []
        points, strokes = _points_of(axes), _strokes_of(axes)
        for name in (text for text in axes.texts if isinstance(text, Annotation)):
            size, centre = name.get_window_extent(), axes.transData.transform(name.xy)
            best = None
            for reach in (4, 9, 16, 26, 38):  # points between the mark and the name
                for cosine, sine in around:
                    offset = np.array([cosine, sine]) * (
                        np.array([size.width, size.height]) / 2 + reach * pixel
                    )
                    corner = centre + offset - (size.width / 2, size.height / 2)
                    box = Bbox.from_bounds(*corner, size.width, size.height)
                    inside = (
                        frame.x0 <= box.x0
                        and box.x1 <= frame.x1
                        and frame.y0 <= box.y0
                        and box.y1 <= frame.y1
                    )
                    cost = 3 * sum(map(box.overlaps, taken)) + 3 * (not inside)
                    cost += box.padded(2).count_contains(points) / 2
                    cost += 0.4 * (box.count_contains(strokes) > 0) + reach / 40
                    if best is None or cost < best[0]:
                        best = cost, box, offset / pixel
            taken.append(best[1])
            name.set_position(tuple(best[2]))


def _points_of(axes) -> np.ndarray:
    """Where marks are drawn, in pixels: (n, 2)."""
    return np.vstack(
        [np.zeros((0, 2)), *(axes.transData.transform(line.get_xydata()) for line in axes.lines)]
    )


def _strokes_of(axes) -> np.ndarray:
    """Points along lines and error bars, in pixels: (n, 2)."""
    segments = [line.get_xydata() for line in axes.lines if line.get_linestyle() != "None"]
    segments += [
        part for bars in axes.collections if isinstance(bars, LineCollection) for part in bars.get_segments()
    ]
    found = [np.zeros((0, 2))]
    for corners in (axes.transData.transform(segment) for segment in segments if len(segment)):
        for begin, end in itertools.pairwise(corners):
            found.append(begin + np.linspace(0, 1, 40)[:, None] * (end - begin))
    return np.vstack(found)


def headline(figure, text: str) -> None:
    """What the figure is about, and below it what it shows, each line folded to the figure's width."""
    width = int(13 * figure.bbox.width / figure.dpi)  # letters
    lines = [fill(line, width, subsequent_indent="    ") for line in text.split("\n")]
    figure.suptitle("\n".join(lines), fontsize=8.5, fontweight="bold", x=0.01, ha="left")


def caption(figure, text: str) -> None:
    """Small grey text below the axes: n, task, models, machine."""
    figure.supxlabel(text, fontsize=6.5, color="0.4", x=0.01, ha="left", wrap=True)


def save(figure, output: Path) -> None:
    """Write a figure as PNG and SVG."""
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output.with_suffix(".png"))
    figure.savefig(output.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
