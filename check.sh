#!/usr/bin/env bash
# Lint, type-check and test.
#
#   bash check.sh         the tests that find most faults, within five minutes on two cores
#   bash check.sh --all   every test, and whether they reach enough of the code
#
# Other arguments go to pytest. With --all they choose a part of all tests, without the coverage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/env.sh requirements.txt requirements-dev.txt
chosen=(-m "not slow")
if [ "${1:-}" = --all ]; then
    shift
    chosen=()
    if [ $# = 0 ]; then
        chosen=(--cov --cov-report=term:skip-covered --cov-fail-under=85)
    fi
fi
# Tests share the cores among them; threads of numpy's own would wait for each other.
export OPENBLAS_NUM_THREADS=1
# glibc hands every large array back to the kernel, and each costs page faults anew: a tenth of the time.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=67108864
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
exec "$PYTHON" -m pytest --numprocesses logical --maxprocesses 4 ${chosen[@]+"${chosen[@]}"} "$@"
