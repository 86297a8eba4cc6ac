#!/usr/bin/env bash
# Trains students of tiny_llada with variants of D2F's training, for the same number of tokens, and makes their table:
#   scripts/d2f_ablation.sh [settings of eval.py]      TOKENS=1_000_000 and THREADS=2 change the trainings
# A stopped training or run goes on; finished ones are only drawn.
set -euo pipefail
cd "$(dirname "$0")/.."
recipe=tiny_d2f_llada prefix=d2f_ tokens=${TOKENS:-1_000_000}
source scripts/ablation.sh
train full
train random_noise ++objective_options.noise=random
train unfinished ++objective_options.finished=false
train published_noise ++objective_options.finished=false ++objective_options.p_min=0.2 ++objective_options.p_max=0.7
train hard_labels ++objective_options.targets=data
scripts/figure.sh d2f_training "$@"
