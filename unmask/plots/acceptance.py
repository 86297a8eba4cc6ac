"""Kind `acceptance`: how much of a draft a target takes, from records of decoders that draft and verify."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from unmask.plots.definition import Acceptance
from unmask.plots.style import caption, headline, plt, save, styles
from unmask.records.collection import Collection
from unmask.records.stats import Interval, bootstrap_ratio


def draw(acceptance: Acceptance, found: Collection, published: pd.DataFrame, output: Path, note: str) -> None:
    """Left: how often a step takes so many tokens. Right: how often the k-th drafted token is taken when
    those before it are, with 95% intervals over documents."""
    runs = [row for _, row in found.rows.iterrows() if drafts(row)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.8))
    looks = styles([row.decoder for row in runs])
    for row, look in zip(runs, looks, strict=True):
        block = found.configs[row.run]["decoder"]["block_length"]
        documents = [lengths(sample) for sample in found.scored[row.run]]
        longest = max(block or 0, max((max(d) for d in documents if d), default=1))
        every = np.concatenate([np.array(d, int) for d in documents])
        counts = np.bincount(every, minlength=longest + 1)[1:]
        label = f"{row.label} ({every.mean():.2f})"
        left.plot(range(1, longest + 1), 100 * counts / counts.sum(), marker="o", label=label, **look)
        places = range(1, longest)
        intervals = [conditional(documents, k) for k in places]
        middle, low, high = (
            np.array([100 * (getattr(i, part) if i else np.nan) for i in intervals])
            for part in ("value", "low", "high")
        )
        bars = [np.maximum(middle - low, 0), np.maximum(high - middle, 0)]
        right.errorbar(places, middle, yerr=bars, marker="o", elinewidth=0.8, **look)
    left.set(xlabel="tokens of a step (acceptance length)", ylabel="steps (%)", ylim=(0, None))
    left.legend(fontsize=6.5, frameon=False)
    right.set(xlabel="place in the draft", ylabel="taken, if those before are (%)", ylim=(0, 100))
    headline(figure, acceptance.title)
    caption(figure, f"In brackets: mean acceptance length. {note}")
    save(figure, output)


def drafts(row: pd.Series) -> bool:
    """Whether a run's decoder drafts: it has a drafter's forwards beside the target's."""
    return "drafter" in row.forwards


def lengths(sample: dict) -> list[int]:
    """Tokens that each step took, without the first one, which reads the prompt, and the last one, which the
    end cut."""
    counts = np.bincount([step for step in sample["commits"] if step >= 0])
    return counts[1:-1].tolist()


def conditional(documents: Sequence[Sequence[int]], k: int) -> Interval | None:
    """How often the k-th drafted token is taken when the k - 1 before it are; None where they never are.

    A step of n tokens took n - 1 drafted ones.
    """
    before = [sum(n >= k for n in each) for each in documents]
    taken = [sum(n >= k + 1 for n in each) for each in documents]
    return bootstrap_ratio(taken, before) if sum(before) else None
