#!/usr/bin/env bash
# One answer of APD beside the autoregressive model's, tokens coloured by step:  scripts/fig1.sh [settings of demo.py]
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x $python ] || python=python
$python demo.py decoder.mixture_weight=0.1 'compare="model=tiny_qwen_large decoder=autoregressive"' save=figures/fig1.png "$@"
