#!/usr/bin/env bash
# Super-resolve; without arguments the phantom's held-back CT, with the model trained last or, before
# any training, with the weights that come with the project. Every argument goes to medicaltest.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/env.sh" requirements.txt
exec "$PYTHON" "$PROJECT/medicaltest.py" "$@"
