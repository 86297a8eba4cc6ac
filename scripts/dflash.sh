#!/usr/bin/env bash
# DFlash's figures on the tiny family. Arguments go to eval.py and report.py.
# (Speed, compared with transformers' loops: python bench.py bench=dflash.)
# scripts/dflash.sh paper [settings]: the published tables on the published models.
set -e
here="$(dirname "$0")"
if [ "${1:-}" = paper ]; then # the published tables, on the published models: docs/papers.md
  shift
  for figure in dflash_table1; do
    "$here/figure.sh" $figure "$@"
  done
  exit
fi
for figure in dflash dflash_acceptance; do
  "$here/figure.sh" $figure "$@"
done
