#!/usr/bin/env bash
# The board: every method on its model, two tasks, one comparison. Arguments go to eval.py and report.py.
# Stopped, it goes on; finished, it only draws. (Batches and memory: python bench.py bench=board.)
set -euo pipefail
exec "$(dirname "$0")/figure.sh" board "$@"
