#!/usr/bin/env bash
# One answer of APD beside one token a step, tokens coloured by step:  scripts/fig1.sh [settings of demo.py]
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x $python ] || python=python
$python demo.py compare=true save=figures/fig1.png "$@"
