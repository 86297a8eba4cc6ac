#!/usr/bin/env bash
# DFlash's figures on the tiny family. Arguments go to eval.py and report.py.
# (Speed, compared with transformers' loops: python bench.py bench=dflash.)
set -e
here="$(dirname "$0")"
for figure in dflash dflash_acceptance; do
  "$here/figure.sh" $figure "$@"
done
