#!/usr/bin/env bash
# The tiny family's reference run, which results/reference/ holds: every figure, and figures 4 and 5 for APD too (90 minutes on two cores).
set -euo pipefail
here=$(dirname "$0")
for figure in fig2 fig3 fig4 fig5 fig6 tab1; do
  "$here/$figure.sh" results=results/reference "$@"
done
for figure in fig4 fig5; do
  "$here/$figure.sh" results=results/reference decoder=apd decoder.mixture_weight=0.1 "$@"
done
