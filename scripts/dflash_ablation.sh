#!/usr/bin/env bash
# Trains drafters of tiny_qwen_large that each lack a part of DFlash, for the same number of tokens, and makes their table:
#   scripts/dflash_ablation.sh [settings of eval.py]      TOKENS=1_000_000 and THREADS=2 change the trainings
# It needs the answers that recipe=tiny_dflash names. A stopped training or run goes on; finished ones are only drawn.
set -euo pipefail
cd "$(dirname "$0")/.."
recipe=tiny_dflash prefix=dflash_ tokens=${TOKENS:-1_000_000}
source scripts/ablation.sh
train full
train no_features "architecture.target_layer_ids=[-1]" # the embeddings of the text instead
train one_feature "architecture.target_layer_ids=[2]"
train gamma_inf ++objective_options.gamma=inf
train fixed_blocks ++objective_options.anchor_positions=fixed
train one_layer architecture.num_hidden_layers=1
scripts/figure.sh dflash_training "$@"
