# Sourced by the scripts *_ablation.sh: `train NAME [SETTING ...]` trains a variant of $recipe for $tokens tokens into
# runs/ablation/$prefix$NAME, unless it is there. They set recipe, prefix and tokens first. THREADS may be set by the user.
python=.venv/bin/python
[ -x $python ] || python=python
train() {
  local folder=$prefix$1
  [ -e "runs/ablation/$folder/training.json" ] || $python train.py "recipe=$recipe" name="$1" output="runs/ablation/$folder" \
    folder="runs/train/ablation/$folder" tokens="$tokens" threads="${THREADS:-2}" validation_problems=0 "${@:2}"
}
