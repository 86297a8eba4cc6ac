"""Kind `acceptance`: how much of a draft a target takes, from records of decoders that draft and verify."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from unmask.records.collection import Collection
from unmask.records.sample import committed
from unmask.records.stats import Interval, bootstrap_ratio
from unmask.report.definition import Acceptance
from unmask.report.style import MARKERS, PUBLISHED, caption, headline, plt, save, styles


def draw(acceptance: Acceptance, found: Collection, published: pd.DataFrame, output: Path, note: str) -> None:
    """Left: how often a step takes so many tokens. Right: how often the k-th drafted token is taken when
    those before it are, with 95% intervals over documents. Below, what was published, by task."""
    runs = [row for _, row in found.rows.iterrows() if drafts(row)]
    height = 2.8 if published.empty else 5.2
    figure, grid = plt.subplots(1 if published.empty else 2, 2, squeeze=False, figsize=(7, height))
    left, right = grid[0]
    if not published.empty:
        _published(grid[1], published)
    drawn_as = styles([row.decoder for row in runs])
    for row, style in zip(runs, drawn_as, strict=True):
        longest, documents = taken(found, row)
        every = np.concatenate(documents)
        counts = np.bincount(every, minlength=longest + 1)[1:]
        mean = mean_length(documents)
        ends = "" if np.isnan(mean.low) else f" [{mean.low:.2f}, {mean.high:.2f}]"
        label = f"{row.label}: {mean.value:.2f}{ends}"
        left.plot(range(1, longest + 1), 100 * counts / counts.sum(), marker="o", **style)
        positions = range(1, longest)
        intervals = [conditional(documents, k) for k in positions]
        middle, low, high = (
            np.array([100 * (getattr(i, part) if i else np.nan) for i in intervals])
            for part in ("value", "low", "high")
        )
        bars = [np.maximum(middle - low, 0), np.maximum(high - middle, 0)]
        right.errorbar(positions, middle, yerr=bars, marker="o", elinewidth=0.8, label=label, **style)
    left.set(xlabel="tokens of a step (acceptance length)", ylabel="steps (%)", ylim=(0, None))
    right.set(xlabel="position in the draft", ylabel="taken, if those before are (%)", ylim=(0, 100))
    right.legend(fontsize=6.5, frameon=False, handlelength=3.5, loc="lower left")
    headline(figure, acceptance.title)
    caption(figure, f"Beside each name: mean acceptance length. {note}")
    save(figure, output)


def _published(row: Sequence, points: pd.DataFrame) -> None:
    """Acceptance length and speed-up, a mark for each task and series."""
    tasks = list(dict.fromkeys(points.task))
    speed_up = points.x_name.iloc[0]
    values = points.assign(x=points.x.astype(float))
    for axes, column, label in zip(
        row, ("tokens_per_step", "x"), ("tokens of a step (acceptance length)", speed_up), strict=True
    ):
        for mark, (series, here) in zip(MARKERS, values.groupby("series", sort=False), strict=False):
            axes.plot(
                here[column],
                list(map(tasks.index, here.task)),
                mark,
                color=PUBLISHED,
                fillstyle="none",
                label=series,
            )
        axes.set_yticks(range(len(tasks)), tasks)
        axes.invert_yaxis()
        axes.set(xlabel=label, xlim=(0, None))
        axes.set_title("published, blocks of 16", color=PUBLISHED)
    row[0].legend(fontsize=6.5, frameon=False, loc="lower left")


def drafts(row: pd.Series) -> bool:
    """Whether a run's decoder drafts and tells its steps: transformers' own loops do not."""
    return "drafter" in row.forwards and not row.decoder.startswith("transformers")


def taken(found: Collection, row: pd.Series) -> tuple[int, list[np.ndarray]]:
    """(block length of a run: where it is the drafter's own, the most that a step took; `lengths` of each of
    its documents)."""
    samples = found.scored[row.run]
    longest = found.configs[row.run]["decoder"]["block_length"]
    longest = longest or max(max(committed(sample)[1:], default=1) for sample in samples)
    return longest, [np.array(lengths(sample, longest), int) for sample in samples]


def mean_length(documents: Sequence[np.ndarray]) -> Interval:
    """Mean tokens a step of the `taken` of documents, with its interval over documents."""
    whole = [each for each in documents if len(each)]
    return bootstrap_ratio([each.sum() for each in whole], [len(each) for each in whole])


def lengths(sample: dict, block: int) -> list[int]:
    """Tokens that each step took: without the first one, which reads the prompt, and without those near the
    end of max_new_tokens, whose blocks were cut short."""
    counts = np.array(committed(sample))
    before = np.cumsum(counts) - counts
    whole = before + block <= sample["max_new_tokens"]
    return counts[1:][whole[1:]].tolist()


def conditional(documents: Sequence[Sequence[int]], k: int) -> Interval | None:
    """How often the k-th drafted token is taken when the k - 1 before it are; None where they never are.

    A step of n tokens took n - 1 drafted ones.
    """
    before = [sum(n >= k for n in each) for each in documents]
    taken = [sum(n >= k + 1 for n in each) for each in documents]
    return bootstrap_ratio(taken, before) if sum(before) else None
