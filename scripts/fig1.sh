#!/usr/bin/env bash
# An answer of APD and one of the autoregressive model, tokens coloured by step:  scripts/fig1.sh [settings of demo.py]
# Without settings it draws figures/fig1.png, with settings results/figures/fig1.png.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x $python ] || python=python
picture=figures/fig1.png
[ $# -eq 0 ] || picture=results/figures/fig1.png
$python demo.py decoder.mixture_weight=0.1 'compare="model=tiny_qwen_large decoder=autoregressive"' "save=$picture" "$@"
