#!/usr/bin/env bash
# Trains variants of a tiny student that each lack a part of the paper's training, for the same number of tokens, and makes
# their table:
#   scripts/ablation.sh d2f|dflash|dparallel [settings of eval.py]      TOKENS=1_000_000 and THREADS=2 change the trainings
# dflash and dparallel need the answers that recipe=tiny_dflash and recipe=tiny_dparallel_llada name.
# A stopped training or run goes on; finished ones are only drawn.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x $python ] || python=python
paper=${1:-}
shift || true

train() { # NAME [SETTING ...]
  local folder=$prefix$1
  [ -e "runs/ablation/$folder/training.json" ] || $python train.py "recipe=$recipe" name="$1" output="runs/ablation/$folder" \
    folder="runs/train/ablation/$folder" tokens="${TOKENS:-$tokens}" threads="${THREADS:-2}" validation_problems=0 "${@:2}"
}

case $paper in
  d2f)
    recipe=tiny_d2f_llada prefix=d2f_ tokens=1_000_000 figure=d2f_training
    train full
    train random_noise ++objective_options.noise=random
    train unfinished ++objective_options.finished=false
    train published_noise ++objective_options.finished=false ++objective_options.p_min=0.2 ++objective_options.p_max=0.7
    train hard_labels ++objective_options.targets=data
    ;;
  dflash)
    recipe=tiny_dflash prefix=dflash_ tokens=1_000_000 figure=dflash_training
    train full
    train no_features "architecture.target_layer_ids=[-1]" # the embeddings of the text instead
    train one_feature "architecture.target_layer_ids=[2]"
    train gamma_inf ++objective_options.gamma=inf
    train fixed_blocks ++objective_options.anchor_positions=fixed
    train one_layer architecture.num_hidden_layers=1
    ;;
  dparallel)
    recipe=tiny_dparallel_llada prefix= tokens=300_000 figure=dparallel_ablation
    train full
    train no_certainty ++objective_options.beta=0
    train no_consistency ++objective_options.consistency=0
    train whole_answer ++objective_options.block_length=null
    train ratio25 ++objective_options.mask_ratio=0.25
    train ratio75 ++objective_options.mask_ratio=0.75
    train ratio100 ++objective_options.mask_ratio=1.0
    ;;
  *)
    echo "which ablation? scripts/ablation.sh d2f, dflash or dparallel" >&2
    exit 2
    ;;
esac
scripts/figure.sh $figure "$@"
