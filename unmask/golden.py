"""Replay what the published decoders did:  python -m unmask.golden tests/golden/traces"""

import sys

from unmask.testing.golden import main

if __name__ == "__main__":
    sys.exit(main())
