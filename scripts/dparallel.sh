#!/usr/bin/env bash
# dParallel's figures for both layouts, the padding table and the certainty map; arguments go to eval.py and report.py.
# (Its ablations need trainings: scripts/dparallel_ablation.sh.)
set -e
here="$(dirname "$0")"
for figure in dparallel_llada dparallel_dream dparallel_padding; do
  "$here/figure.sh" $figure "$@"
done
