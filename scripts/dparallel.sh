#!/usr/bin/env bash
# dParallel's figures: both layouts, the padding table, Fast-dLLM's caches, and the certainty maps of base and student.
# Arguments go to eval.py and report.py. (For ablations, which need trainings: scripts/dparallel_ablation.sh.)
set -e
here="$(cd "$(dirname "$0")" && pwd)"
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
