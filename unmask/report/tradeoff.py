"""Accuracy over tokens per step: the trade that parallel decoding makes, one point a setting, with both
intervals."""

from pathlib import Path

from unmask.report.style import COLOURS, caption, plt


def tradeoff(summaries: dict[str, dict], output: Path, note: str) -> None:
    """Draw one point a summary, labelled directly. `note` goes below: what was measured, on what."""
    figure, axes = plt.subplots(figsize=(5, 3.6))
    for colour, (label, s) in zip(COLOURS, summaries.items(), strict=False):
        x, y = s["tokens_per_step"], 100 * s["accuracy"]
        low, high = (100 * end for end in s["accuracy_interval"])
        axes.errorbar(
            x,
            y,
            yerr=[[y - low], [high - y]],
            xerr=_distances(x, s["tokens_per_step_interval"]),
            fmt="o",
            color=colour,
            capsize=3,
        )
        speed = s["tokens_per_second"]  # None where the run's times are void
        axes.annotate(
            label if speed is None else f"{label}\n{speed:.0f} tokens/s",
            (x, y),
            xytext=(7, 7),
            textcoords="offset points",
            color=colour,
        )
    right = 1.4 * max(s["tokens_per_step"] for s in summaries.values())  # room for the labels
    axes.set(
        xlabel="useful tokens per denoiser forward", ylabel="accuracy (%)", ylim=(0, 100), xlim=(0, right)
    )
    caption(figure, note)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)
    plt.close(figure)


def _distances(value: float, ends: list[float] | None) -> list[list[float]] | None:
    return ends and [[value - ends[0]], [ends[1] - value]]
