#!/usr/bin/env bash
# What a GPU is asked for: is it right, how fast is it, and weights of the paper's method.
#
#   bash benchmarks/gpu.sh OUT right fast      the tests that need one, then benchmarks/gpu.py
#   bash benchmarks/gpu.sh OUT train           on phantom patients 101 to 105 and 201 to 205
#
# DEVICE=cpu tries everything at small sizes. PYTHON, SECONDS_FAST and SECONDS_TRAIN change what
# they name. Training goes on from OUT/checkpoints where that is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$1
shift
python=${PYTHON:-python3}
mkdir -p "$out"
ids=all
tiny=()
if [ "${DEVICE:-cuda}" = cpu ]; then
    ids=-1
    tiny=(--tiny)
fi
for stage in "$@"; do
    echo "== $stage, $(date +%T)"
    case $stage in
    right)
        # By name, since other files import what the card's machine may lack.
        mapfile -t files < <(grep -rl "mark.gpu" tests --include=test_*.py)
        timeout "${SECONDS_RIGHT:-100}" "$python" -m pytest -v --tb=short -m gpu \
            -p no:cacheprovider "${files[@]}" 2>&1 | tail -60 || true
        ;;
    fast)
        "$python" -m benchmarks.gpu --out "$out" --gpu_ids "$ids" "${tiny[@]}" \
            --seconds "${SECONDS_FAST:-240}" || true
        ;;
    volume)
        "$python" -m benchmarks.volume --gpu_ids "$ids" --precision bf16 \
            --slices "${SLICES:-64}" --edge "${EDGE:-512}" || true
        ;;
    *)
        echo "error: stage $stage, expected right, fast, volume or train" >&2
        exit 2
        ;;
    esac
done
