#!/usr/bin/env bash
# ParallelBench: every task and decoder on both tiny models, with the exact bounds; greedy: decoder.temperature=0 results=FOLDER.
set -euo pipefail
exec "$(dirname "$0")/figure.sh" parallelbench "$@"
