"""Make published prompts anew:  python -m unmask.prompts tests/golden/prompts/prompts.jsonl"""

import sys

from unmask.testing.prompts import main

if __name__ == "__main__":
    sys.exit(main())
