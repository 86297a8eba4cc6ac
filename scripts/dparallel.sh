#!/usr/bin/env bash
# dParallel's figures: both layouts, the padding table, Fast-dLLM's caches, and the certainty maps of base and student.
# Arguments go to eval.py and report.py. (For ablations, which need trainings: scripts/ablation.sh dparallel.)
# scripts/dparallel.sh paper [settings]: the published tables on the published models (docs/papers.md).
set -e
here="$(cd "$(dirname "$0")" && pwd)"
if [ "${1:-}" = paper ]; then
  shift
  for figure in dparallel_table1 dparallel_table2 dparallel_fig4; do
    "$here/figure.sh" $figure "$@"
  done
  exit
fi
for figure in dparallel_llada dparallel_dream dparallel_padding block_caches; do
  "$here/figure.sh" $figure "$@"
done
cd "$here/.."
python=.venv/bin/python
[ -x $python ] || python=python
for layout in llada dream; do
  $python -m scripts.certainty_map --picture "results/figures/certainty_map_$layout.png" \
    "model=tiny_$layout decoder=dparallel decoder.block_length=8 batch_size=16" "model=tiny_dparallel_$layout decoder=dparallel decoder.block_length=8 batch_size=16"
done
