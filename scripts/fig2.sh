#!/usr/bin/env bash
exec "$(dirname "$0")/figure.sh" fig2 "$@"
