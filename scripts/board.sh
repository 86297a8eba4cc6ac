#!/usr/bin/env bash
# The board: every method on its model, two tasks, one comparison. Arguments go to eval.py and report.py.
# A stopped run goes on, a finished one is only drawn. (Batches and memory: python bench.py bench=board.)
set -euo pipefail
exec "$(dirname "$0")/figure.sh" board "$@"
