#!/usr/bin/env bash
# All runs of a figure, then the figure:  scripts/figure.sh fig3 [settings of eval.py]
# A stopped run goes on, a finished one is only drawn. The picture goes to results/figures/, or to that of results=FOLDER.
# With -m and a launcher each setting is a job of its own, and the settings do not take turns.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1
shift
python=.venv/bin/python
[ -x $python ] || python=python
chosen=() # the settings that report.py needs too
for setting in "$@"; do
  case $setting in -* | hydra* | +hydra*) ;; *) chosen+=("$setting") ;; esac
done
$python eval.py "figure=$name" "$@"
$python report.py "figure=$name" ${chosen[@]+"${chosen[@]}"}
