#!/usr/bin/env bash
# Super-resolve; without arguments the phantom's held-back CT with the model trained last. Every
# argument goes to medicaltest.py.
set -euo pipefail
if [ $# -eq 0 ] && [ ! -f checkpoints/last_experiment.txt ]; then
    # Said before any installation, since there is nothing to run yet.
    echo "error: nothing has been trained yet in $PWD/checkpoints: run 'bash run.sh' here first" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/scripts/env.sh" requirements.txt
exec "$PYTHON" "$PROJECT/medicaltest.py" "$@"
