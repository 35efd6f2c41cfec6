#!/usr/bin/env bash
# Train; without arguments on the digital lung phantom. Every argument goes to train.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/env.sh" requirements.txt
exec "$PYTHON" "$PROJECT/train.py" "$@"
