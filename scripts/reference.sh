#!/usr/bin/env bash
# Makes the tiny family's reference run: every method, all settings of all figures in turns, in runs/reference. The finished run
# replaces results/reference/reference.parquet; then figures/ is drawn and the page is built. About four hours on two
# cores; each core's process takes half of the documents. A stopped run goes on.
#   scripts/reference.sh [settings of eval.py]      SOME=200 and MANY=500 are the numbers of documents
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x $python ] || python=python
given=(results=runs/reference threads=1 "$@")
some=${SOME:-200} many=${MANY:-500}
figures=board,fig2,fig3,fig4,fig5,fig6,tab1,d2f_llada,d2f_dream,d2f_parts,d2f_blocks
figures+=,dparallel_llada,dparallel_dream,dparallel_padding,block_caches,dflash,dflash_acceptance
mkdir -p runs
second=
trap '[ -z "$second" ] || kill $second 2> /dev/null || true' EXIT # Ctrl-C does not reach a background process

halves() { # decode with a process on each core, then join
  $python eval.py "$@" "${given[@]}" shard=2/2 > runs/reference_2.log 2>&1 & # its progress bar would overwrite the other one
  second=$!
  $python eval.py "$@" "${given[@]}" shard=1/2
  wait $second || { cat runs/reference_2.log; exit 1; }
  second=
  $python eval.py "$@" "${given[@]}"
}

halves "figure=$figures" "limit=$some"
halves figure=board task=gsm_symbolic task.split=validation "limit=$many" # on which best settings are chosen
halves figure=hero "limit=$many"
$python eval.py "figure=$figures" "limit=$some" "${given[@]}" trace=true
rm -rf runs/reference/*.shards runs/reference.parquet
$python -m unmask.records.archive runs/reference runs/reference.parquet threads=1
mv runs/reference.parquet results/reference/reference.parquet
$python report.py results=results/reference "$@"
$python report.py results=results/reference page=true
scripts/fig1.sh
