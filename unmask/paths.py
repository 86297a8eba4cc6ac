"""Where this project lies on disk."""

from pathlib import Path

ROOT = Path(__file__).parents[1]  # the checkout: configurations, checkpoints and results are looked up in it
