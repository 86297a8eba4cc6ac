#!/usr/bin/env bash
# dParallel's figures for both layouts, the padding table, and Fast-dLLM's caches; arguments go to eval.py and report.py.
# (Its ablations need trainings: scripts/dparallel_ablation.sh.)
set -e
here="$(dirname "$0")"
for figure in dparallel_llada dparallel_dream dparallel_padding block_caches; do
  "$here/figure.sh" $figure "$@"
done
