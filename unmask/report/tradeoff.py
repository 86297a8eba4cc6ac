"""Accuracy over tokens per step: the trade that parallel decoding makes, one point a setting, with both
intervals."""

from pathlib import Path

from unmask.report.measures import comparable_summaries
from unmask.report.style import COLOURS, caption, name_points, plt, spread_names


def tradeoff(summaries: dict[str, dict], output: Path, note: str, device: str = "cpu") -> None:
    """Draw one point a summary, labelled directly with what else it runs, and its tokens/s if they compare.

    `note` goes below: what was measured, on what. device: the kind that made them.
    """
    timed, _ = comparable_summaries(summaries, device)
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
        others = [
            f"{count / s['forwards'][s['step_role']]:.1f} {role} forwards a step"
            for role, count in s["forwards"].items()
            if role != s["step_role"]
        ]
        speed = [f"{s['tokens_per_second']:.0f} tokens/s"] if timed[label] else []
        name_points(axes, [x], [y], ["\n".join([label, *others, *speed])], [colour], size=8)
    right = 1.4 * max(s["tokens_per_step"] for s in summaries.values())  # room for the labels
    axes.set(
        xlabel="useful tokens per forward of the denoiser",
        ylabel="accuracy (%)",
        ylim=(0, 100),
        xlim=(0, right),
    )
    caption(figure, note)
    spread_names(figure)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)
    plt.close(figure)


def _distances(value: float, ends: list[float] | None) -> list[list[float]] | None:
    return ends and [[value - ends[0]], [ends[1] - value]]
