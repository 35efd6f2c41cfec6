#!/usr/bin/env bash
# Collect every package into the folder wheels, for a machine without a network.
#
#   bash scripts/make_wheels.sh      on a connected machine with the same system, processor and Python
#
# Then copy the project with wheels/ to the other machine: `bash run.sh` installs from it there.
set -euo pipefail
[ $# = 0 ] || { echo "error: make_wheels.sh takes no arguments, got: $*" >&2 && exit 2; }
# shellcheck source=scripts/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

partial="$PROJECT/wheels.partial"
[ ! -e "$PROJECT/wheels" ] || fail "$PROJECT/wheels exists: delete it to collect anew"
base="$(find_python)" || exit 2
echo "collecting the packages of requirements.lock for $("$base" --version) into wheels (3 GB)" >&2
rm -rf "$partial"
"$base" -m venv --clear "$partial/tools" ||
    fail "cannot make an environment: install Python's venv module (Debian: python3-venv)"
python="$partial/tools/bin/python"

collect() {
    pip_with "$python" wheel --wheel-dir "$partial" "$@" ||
        fail "collecting ${*: -1} failed (see above): check network and disk, and run this again"
}

if needs_visdom_built "$python"; then # see install_visdom
    collect 'setuptools<81' wheel
    pip_with "$python" install 'setuptools<81' wheel || fail "installing setuptools failed (see above)"
    collect --no-build-isolation --no-deps "$VISDOM"
fi
collect --find-links "$partial" --requirement "$PROJECT/requirements.lock"
collect --no-deps "$VIEWER"
rm -rf "$partial/tools"
mv "$partial" "$PROJECT/wheels"
echo "copy this folder with wheels/ to a machine with $("$base" --version): bash run.sh installs from it" >&2
