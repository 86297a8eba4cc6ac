#!/usr/bin/env bash
# The tiny family's reference run, which results/reference/ holds: every figure (90 minutes on two cores). Its pictures are figures/.
set -euo pipefail
here=$(dirname "$0")
for figure in fig2 fig3 fig4 fig5 fig6 tab1; do
  "$here/$figure.sh" results=results/reference "$@"
done
