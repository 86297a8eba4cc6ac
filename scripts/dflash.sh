#!/usr/bin/env bash
# DFlash's figures on the tiny family. Arguments go to eval.py and report.py.
# (Speed, compared with transformers' loops: python bench.py bench=dflash.)
# scripts/dflash.sh paper [settings]: the published tables on the published models (docs/papers.md).
set -e
here="$(dirname "$0")"
figures="dflash dflash_acceptance"
if [ "${1:-}" = paper ]; then
  shift
  figures="dflash_table1"
fi
for figure in $figures; do
  "$here/figure.sh" "$figure" "$@"
done
