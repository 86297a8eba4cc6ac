# For the scripts *_ablation.sh, which source it: `train NAME [SETTING ...]` trains a variant of $recipe for $tokens tokens
# into runs/ablation/$prefix$NAME, unless it is there. Set recipe, prefix and tokens first; THREADS is of the caller.
python=.venv/bin/python
[ -x $python ] || python=python
train() {
  local place=$prefix$1
  [ -e "runs/ablation/$place/training.json" ] || $python train.py "recipe=$recipe" name="$1" output="runs/ablation/$place" \
    folder="runs/train/ablation/$place" tokens="$tokens" threads="${THREADS:-2}" validation_problems=0 "${@:2}"
}
