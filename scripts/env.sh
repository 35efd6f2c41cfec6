# Sourced by run.sh, test.sh and check.sh: leaves a Python in $PYTHON that has what is needed.
#
# An active virtual or conda environment that fulfils requirements.txt is used as it is. Otherwise
# .venv is made beside this project and filled with the exact versions of requirements.lock. The
# stamp .venv/.complete is written last and holds the lock's checksum, so that a half-finished
# installation or a changed lock is noticed and repaired.
#
# Where the project has a folder wheels (scripts/make_wheels.sh), packages come from it alone, and no
# network is needed.
#
# Arguments: the requirement files that must be fulfilled, as named in the project's folder; without
# any, nothing is done but defining the functions.

PROJECT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# Pages take NiiVue's JavaScript out of this package; what it needs to run in a notebook (all of
# IPython) would only be dead weight.
VIEWER="ipyniivue==2.4.4"
VISDOM="visdom==0.2.4"

fail() {
    echo "error: $*" >&2
    exit 2
}

is_python() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

fulfils() {
    local python="$1"
    shift
    (cd "$PROJECT" && "$python" scripts/check_requirements.py "$@") >/dev/null 2>&1
}

find_python() {
    local name
    for name in python3 python3.12 python3.11 python3.13 python3.10 python; do
        if command -v "$name" >/dev/null && is_python "$name"; then
            command -v "$name"
            return
        fi
    done
    fail "no Python from 3.10 to 3.13 found (python3 is $(python3 --version 2>&1)): install one" \
        "and run this again"
}

pip_with() { # PYTHON COMMAND WORD...: pip, from the folder of wheels where there is one
    local python="$1" command="$2" offline=()
    [ ! -d "$PROJECT/wheels" ] || offline=(--no-index --find-links "$PROJECT/wheels")
    "$python" -m pip "$command" --quiet --disable-pip-version-check \
        ${offline[@]+"${offline[@]}"} "${@:3}"
}

needs_visdom_built() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] >= (3, 12))'
}

install_visdom() {
    # visdom has wheels from 0.3 on, which needs Python 3.12. 0.2.4 is built here; its setup.py
    # needs pkg_resources, which setuptools dropped in 81, so it is built before the rest.
    if needs_visdom_built "$1"; then
        pip_with "$1" install 'setuptools<81' wheel &&
            pip_with "$1" install --no-build-isolation --no-deps "$VISDOM"
    fi
}

lock_environment() {
    # Of two first starts at once the second waits. The lock hangs on descriptor 9, so it goes with
    # the last of the processes that install, however they end.
    exec 9>"$PROJECT/.venv.lock" || fail "cannot write in $PROJECT"
    "$1" - <<'LOCK'
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("waiting for another start, which installs .venv", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
    pass  # a file system without locks
LOCK
}

is_complete() {
    [ -x "$PROJECT/.venv/bin/python" ] && [ "$(cat "$1" 2>/dev/null)" = "$(lock_sum)" ]
}

make_environment() {
    local base stamp="$1" from="check network and disk"
    base="$(find_python)" || exit 2
    lock_environment "$base"
    if is_complete "$stamp"; then # the other one has made it
        exec 9>&-
        return
    fi
    echo "installing the packages of requirements.lock into .venv with $("$base" --version)" \
        "(once; a minute or more)" >&2
    [ ! -d "$PROJECT/wheels" ] || from="make wheels/ with this system and Python"
    # Without a stamp an earlier installation died somewhere; what it left is not to be trusted.
    if [ ! -e "$stamp" ] || ! is_python "$PROJECT/.venv/bin/python"; then
        "$base" -m venv --clear "$PROJECT/.venv" ||
            fail "cannot make .venv: install Python's venv module (Debian: python3-venv)"
    fi
    rm -f "$stamp"
    local python="$PROJECT/.venv/bin/python"
    install_visdom "$python" ||
        fail "installing visdom failed (see above): $from, and run this again"
    pip_with "$python" install -r "$PROJECT/requirements.lock" ||
        fail "installing packages failed (see above): $from, and run this again"
    pip_with "$python" install --no-deps "$VIEWER" ||
        fail "installing $VIEWER failed (see above): $from, and run this again"
    lock_sum >"$stamp"
    exec 9>&-
}

lock_sum() {
    { cat "$PROJECT/requirements.lock" && echo "$VIEWER"; } | cksum
}

use_environment() {
    local active="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}"
    if [ -n "$active" ] && is_python "$active/bin/python" && fulfils "$active/bin/python" "$@"; then
        PYTHON="$active/bin/python"
        return
    fi
    local stamp="$PROJECT/.venv/.complete"
    # shellcheck disable=SC2034  # those who source this file use it
    PYTHON="$PROJECT/.venv/bin/python"
    is_complete "$stamp" || make_environment "$stamp"
}

[ $# = 0 ] || use_environment "$@"
