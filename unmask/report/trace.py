"""Figure 1: answers token by token, coloured by the step that committed them; and a race of them as a GIF."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap

from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from unmask.report.style import COLOURS, caption, plt, save

MONOSPACE = 0.602  # width of a character over the font's size
LETTER = 13  # size of a letter of a GIF, in pixels
FRAME, HOLD = 120, 4000  # milliseconds of a forward in a GIF, and of its last picture


@dataclass
class Trace:
    """An answer in the making: what stands at each canvas position, and since which step."""

    title: str
    pieces: list[str | None]  # text of each position; None where still masked
    step_of: list[int] = field(default_factory=list)  # -1 where masked
    steps: int = 0
    revoked: int = 0  # tokens that were masked again or rewritten
    seconds: float = 0.0
    finished: bool = False
    footer: str = ""

    def __post_init__(self):
        self.step_of = [-1] * len(self.pieces)

    def commit(self, positions: list[int], pieces: list[str | None]) -> None:
        """A step's tokens; None where a position is masked again."""
        for position, piece in zip(positions, pieces, strict=True):
            self.revoked += self.pieces[position] is not None
            self.pieces[position] = piece
            self.step_of[position] = -1 if piece is None else self.steps
        self.steps += 1

    def cells(self, end: int | None = None) -> list[tuple[str, int]]:
        """(text, step) of every position up to the last committed one, or to `end`; masks are ("·", -1)."""
        last = max((i + 1 for i, piece in enumerate(self.pieces) if piece is not None), default=0)
        cells = zip(self.pieces, self.step_of, strict=True)
        return [("·" if piece is None else piece, step) for piece, step in cells][: end or last]


def closing_line(traces: Sequence[Trace]) -> str:
    """The steps of several answers, for below them. Their seconds are of one answer each, made one after the
    other, so they are not put side by side (`measures.comparable`)."""
    steps = "; ".join(f"{trace.title}: {trace.steps} steps" for trace in traces)
    return f"{steps}. One answer each: no comparison of speed (eval.py and bench.py take turns)."


def draw(traces: list[Trace], prompt: str, output: Path, note: str, width: int = 44) -> None:
    """A column per trace: its tokens as coloured text, `width` characters a line."""
    lines = [_wrap(trace.cells(), width) for trace in traces]
    tall = max(map(len, lines))
    figure, panels = plt.subplots(
        1, len(traces), figsize=(4.2 * len(traces), 0.22 * tall + 1.5), squeeze=False
    )
    for axes in panels[0]:
        axes.set_axis_off()
        axes.set(xlim=(0, width), ylim=(tall + 0.5, -0.5))
    figure.draw_without_rendering()  # the width of the panels is known after layout
    size = 72 * panels[0, 0].get_window_extent().width / figure.dpi / width / MONOSPACE
    for axes, trace, text in zip(panels[0], traces, lines, strict=True):
        axes.set_title(trace.title, fontsize=9, loc="left", pad=22)
        footer = trace.footer.replace(" forwards, ", " forwards,\n", 1)
        axes.text(0, 1.01, footer, transform=axes.transAxes, fontsize=6.5, color="0.4")
        for y, line in enumerate(text):
            x = 0
            for piece, step in line:
                colour = "0.7" if step < 0 else COLOURS[step % (len(COLOURS) - 1)]
                axes.text(
                    x,
                    y,
                    piece,
                    color=colour,
                    family="monospace",
                    fontsize=size,
                    va="center",
                )
                if piece.strip() and step >= 0:
                    axes.plot(
                        [x + 0.1, x + len(piece) - 0.1], [y + 0.42] * 2, color=colour, linewidth=1, alpha=0.5
                    )
                x += len(piece)
    figure.suptitle(prompt, fontsize=7, x=0.01, ha="left", wrap=True)
    caption(figure, note)
    save(figure, output)


def animate(traces: Sequence[Trace], prompt: str, output: Path, note: str, width: int = 44) -> None:
    """Finished answers in a race, as a GIF: one picture a forward, a column each, `width` characters a line.

    A token that was taken back is masked until the one that stayed is there.
    """
    font = ImageFont.truetype(findfont("DejaVu Sans Mono"), LETTER)
    wide, high = font.getlength("x"), round(1.5 * LETTER)
    lines = [_wrap(trace.cells(), width) for trace in traces]
    columns = len(traces) * (width + 2)
    above, below = wrap(prompt, columns - 2), wrap(note, columns - 2)
    rows = len(above) + max(map(len, lines)) + len(below) + 5
    pictures = []
    for step in range(max(trace.steps for trace in traces) + 1):
        picture = Image.new("RGB", (round((columns + 1) * wide), rows * high), "white")
        pen = ImageDraw.Draw(picture)

        def text(column: float, row: float, words: str, colour: str = "black", pen=pen) -> None:
            pen.text((column * wide, (row + 0.5) * high), words, colour, font)

        for row, words in enumerate(above):
            text(1, row, words)
        for row, words in enumerate(below, rows - len(below) - 1):
            text(1, row, words, "#777777")
        for i, (trace, part) in enumerate(zip(traces, lines, strict=True)):
            left, done = 1 + i * (width + 2), min(step, trace.steps)
            how = f": {trace.footer}" if done == trace.steps else ""
            text(left, len(above) + 0.5, trace.title[:width])
            text(left, len(above) + 1.5, f"{done} of {trace.steps} forwards{how}", "#777777")
            for row, line in enumerate(part, len(above) + 3):
                column = left
                for piece, at in line:
                    if at < done:
                        text(column, row, piece, COLOURS[at % (len(COLOURS) - 1)])
                    begin, end = column * wide, (column + len(piece)) * wide - 2
                    top, bottom = (row + 0.6) * high, (row + 1.35) * high
                    if at == done - 1:  # what this forward committed
                        pen.line([begin, bottom, end, bottom], "black", 2)
                    elif at >= done and piece.strip():
                        pen.rectangle([begin, top, end, bottom], "#e8e8e8")
                    column += len(piece)
        pictures.append(picture)
    ends = Image.new("RGB", (picture.width, 2 * picture.height))  # with all colours: one palette for all
    ends.paste(pictures[0])
    ends.paste(picture, (0, picture.height))
    palette = ends.quantize(dither=Image.Dither.NONE)
    pictures = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in pictures]
    output.parent.mkdir(parents=True, exist_ok=True)
    durations = [FRAME] * (len(pictures) - 1) + [HOLD]
    pictures[0].save(output, save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def _wrap(cells: list[tuple[str, int]], width: int) -> list[list[tuple[str, int]]]:
    """Lines of cells, broken at newlines and where a line is full."""
    lines, used = [[]], 0
    for text, step in cells:
        for k, part in enumerate(text.split("\n")):
            if k or used + len(part) > width:
                lines.append([])
                used = 0
            lines[-1].append((part, step))
            used += len(part)
    return lines
