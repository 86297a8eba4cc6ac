"""Make published prompts anew:  python -m unmask.prompts tests/golden/prompts/prompts.jsonl"""

import unmask.quiet  # noqa: F401, I001  (first: it quiets the libraries below)

import sys

from unmask.testing.prompts import main

if __name__ == "__main__":
    sys.exit(main())
