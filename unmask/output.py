"""What a command prints for programs."""

import json
import re
import sys
from typing import Any

NUMBER = re.compile(r"([-+]?\d+(?:,\d{3})*(?:\.\d+)?)(?: (\[.*\]))?")  # "69.6" or "69.6 [63.1, 75.2]"


def safe_in_csv(value: Any) -> Any:
    """A cell of a CSV: a text that a spreadsheet would take for a formula (it begins with = + - @, a tab or a
    line's end) begins with an apostrophe; numbers and a lone dash stay as they are."""
    formula = isinstance(value, str) and value != "-" and value[:1] in tuple("=+-@\t\r\n")
    return f"'{value}" if formula and not NUMBER.fullmatch(value) else value


def print_json(value: Any) -> None:
    """One JSON object on the last line of stdout, where a program reads it; a terminal shows tables alone."""
    if not sys.stdout.isatty():
        print(json.dumps(value))
