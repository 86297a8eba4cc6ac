#!/usr/bin/env bash
# ParallelBench: every decoder on both tiny models, a task after the other, then the figure with its exact bounds and the table:
#   scripts/parallelbench.sh [settings of eval.py]            greedy: decoder.temperature=0 results=FOLDER
# 308 runs of 200 short answers. A stopped run goes on, a finished one is only drawn; every task says how long it took.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x $python ] || python=python
tasks=$(sed -n 's/^  task.name: \[\(.*\)\]$/\1/p' eval_config/figure/parallelbench.yaml)
for setting in "$@"; do
  case $setting in task.name=*) tasks=${setting#task.name=} ;; esac
done
number=0
for task in ${tasks//,/ }; do
  started=$SECONDS number=$((number + 1))
  $python eval.py figure=parallelbench "$@" "task.name=$task"
  echo "$task, task $number of $(wc -w <<<"${tasks//,/ }"): $((SECONDS - started)) seconds" >&2
done
$python report.py figure=parallelbench "$@"
