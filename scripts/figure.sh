#!/usr/bin/env bash
# All runs of a figure, then the figure:  scripts/figure.sh fig3 [settings of eval.py]
# Stopped, the same command goes on; finished, it only draws. results=FOLDER is where the runs are kept and read.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1
shift
python=.venv/bin/python
[ -x $python ] || python=python
results=results
for setting in "$@"; do case $setting in results=*) results=${setting#results=} ;; esac; done
$python eval.py -m "+figure=$name" "$@"
$python report.py "figure=${name%_7b}" "results=$results"
