#!/usr/bin/env bash
# All runs of a figure, then the figure:  scripts/figure.sh fig3 [settings of eval.py]
# Stopped, the same command goes on; finished, it only draws. The picture lies beside the runs (results/figures/,
# or results=FOLDER's). With -m and a launcher the settings run one by one instead of in turns.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1
shift
python=.venv/bin/python
[ -x $python ] || python=python
chosen=() # what chooses runs: for the report too
for setting in "$@"; do
  case $setting in -* | hydra* | +hydra*) ;; *) chosen+=("$setting") ;; esac
done
$python eval.py "figure=$name" "$@"
$python report.py "figure=$name" ${chosen[@]+"${chosen[@]}"}
