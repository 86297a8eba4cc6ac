#!/usr/bin/env bash
# Fast-dLLM's figure: its caches on the tiny family. Arguments go to eval.py and report.py.
# scripts/fast_dllm.sh paper [settings]: the published tables on the published models.
set -e
here="$(dirname "$0")"
if [ "${1:-}" = paper ]; then # the published tables, on the published models: docs/papers.md
  shift
  for figure in fast_dllm_table1 fast_dllm_table2; do
    "$here/figure.sh" $figure "$@"
  done
  exit
fi
"$here/figure.sh" block_caches "$@"
