"""Colours of the figures that can also be seen on a dark page."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_hex, to_rgb

DARK = "#17191e"  # background of the dark page, as in style.css
CONTRAST = 4.5  # of a colour over that background, at least (WCAG 1.4.3)


def on_both(colour: str) -> list[str]:
    """[the colour of the figures, a lighter one that can be seen on the dark page]."""
    red_green_blue = np.array(to_rgb(colour))
    lighter = next(
        mixed
        for share in np.linspace(0, 1, 21)
        if contrast(mixed := red_green_blue + share * (1 - red_green_blue), to_rgb(DARK)) >= CONTRAST
    )
    return [colour, to_hex(lighter)]


def contrast(one: Sequence[float], other: Sequence[float]) -> float:
    """The contrast ratio of two sRGB colours, 1 to 21 (WCAG 2.2)."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: Sequence[float]) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (WCAG 2.2)."""
    values = np.asarray(colour, float)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
