#!/usr/bin/env bash
# Both layouts; arguments go to eval.py and report.py.
set -e
here="$(dirname "$0")"
"$here/figure.sh" dparallel_llada "$@"
"$here/figure.sh" dparallel_dream "$@"
