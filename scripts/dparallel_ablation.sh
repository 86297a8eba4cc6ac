#!/usr/bin/env bash
# Trains students of tiny_llada that each lack a part of certainty forcing, for the same number of tokens, and makes their table:
#   scripts/dparallel_ablation.sh [settings of eval.py]      TOKENS=300_000 and THREADS=2 change the trainings
# It needs the answers that recipe=tiny_dparallel_llada names. A stopped training or run goes on; finished ones are only drawn.
set -euo pipefail
cd "$(dirname "$0")/.."
recipe=tiny_dparallel_llada prefix= tokens=${TOKENS:-300_000}
source scripts/ablation.sh
train full
train no_certainty ++objective_options.beta=0
train no_consistency ++objective_options.consistency=0
train whole_answer ++objective_options.block_length=null
train ratio25 ++objective_options.mask_ratio=0.25
train ratio75 ++objective_options.mask_ratio=0.75
train ratio100 ++objective_options.mask_ratio=1.0
scripts/figure.sh dparallel_ablation "$@"
