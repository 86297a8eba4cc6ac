#!/usr/bin/env bash
# D2F's figures: both layouts, its parts, block sizes. Arguments go to eval.py and report.py.
# (For noise and teacher, which need trainings: scripts/ablation.sh d2f. Memory and batches: python bench.py bench=d2f.)
# scripts/d2f.sh paper [settings]: the published tables on the published models (docs/papers.md).
set -e
here="$(dirname "$0")"
figures="d2f_llada d2f_dream d2f_parts d2f_blocks"
if [ "${1:-}" = paper ]; then
  shift
  figures="d2f_table1 d2f_table2 d2f_table3 d2f_fig2 d2f_fig5"
fi
for figure in $figures; do
  "$here/figure.sh" "$figure" "$@"
done
