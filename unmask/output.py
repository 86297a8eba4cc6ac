"""What a command prints for programs."""

import json
import sys
from typing import Any


def print_json(value: Any) -> None:
    """One JSON object on the last line of stdout, where a program reads it; a terminal shows tables alone."""
    if not sys.stdout.isatty():
        print(json.dumps(value))
