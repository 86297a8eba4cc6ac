#!/usr/bin/env bash
# One answer of APD beside the autoregressive model's, tokens coloured by step:  scripts/fig1.sh [settings of demo.py]
# As it is, it draws figures/fig1.png; with other settings, results/figures/fig1.png.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x $python ] || python=python
picture=figures/fig1.png
[ $# -eq 0 ] || picture=results/figures/fig1.png
$python demo.py decoder.mixture_weight=0.1 'compare="model=tiny_qwen_large decoder=autoregressive"' "save=$picture" "$@"
