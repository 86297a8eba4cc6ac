#!/usr/bin/env bash
# D2F's figures for both layouts, its parts, and block sizes; arguments go to eval.py and report.py.
# (Its noise schedule and teacher need trainings: scripts/d2f_ablation.sh. Memory and batches: python bench.py bench=d2f.)
set -e
here="$(dirname "$0")"
for figure in d2f_llada d2f_dream d2f_parts d2f_blocks; do
  "$here/figure.sh" $figure "$@"
done
