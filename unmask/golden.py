"""Replay what the published decoders did:  python -m unmask.golden tests/golden/traces"""

import unmask.quiet  # noqa: F401, I001  (first: it quiets the libraries below)

import sys

from unmask.testing.golden import main

if __name__ == "__main__":
    sys.exit(main())
