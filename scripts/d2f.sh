#!/usr/bin/env bash
# D2F's figures: both layouts, its parts, block sizes. Arguments go to eval.py and report.py.
# (For noise and teacher, which need trainings: scripts/d2f_ablation.sh. Memory and batches: python bench.py bench=d2f.)
set -e
here="$(dirname "$0")"
for figure in d2f_llada d2f_dream d2f_parts d2f_blocks; do
  "$here/figure.sh" $figure "$@"
done
