#!/usr/bin/env bash
# Fast-dLLM's figure: its caches on the tiny family. Arguments go to eval.py and report.py.
# scripts/fast_dllm.sh paper [settings]: the published tables on the published models (docs/papers.md).
set -e
here="$(dirname "$0")"
figures="block_caches"
if [ "${1:-}" = paper ]; then
  shift
  figures="fast_dllm_table1 fast_dllm_table2"
fi
for figure in $figures; do
  "$here/figure.sh" "$figure" "$@"
done
