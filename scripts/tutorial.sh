#!/usr/bin/env bash
# From a folder of DICOM slices to a page that shows the result, step by step.
#
#     bash scripts/tutorial.sh [DICOM_FOLDER [START:STOP]]
#
# Without a folder one is made: the phantom's held-back CT as a DICOM series. START:STOP chooses
# slices, as Python counts; without it two in the middle are taken, since on a CPU a slice of a
# whole chest takes seconds. Results go to results/tutorial, in the folder you start from.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh" requirements.txt
OUT=results/tutorial

step() {
    printf '\n== %s\n' "$*"
}

super_resolve() {
    # The exact command that you would type, with python for the environment's.
    printf '$ python medicaltest.py'
    printf ' %q' "$@"
    printf '\n'
    "$PYTHON" "$PROJECT/medicaltest.py" "$@"
}

DICOM="${1:-}"
if [ -z "$DICOM" ]; then
    DICOM=datasets/tutorial_dicom
    step "A DICOM series: none was given, so the phantom's CT becomes one"
    if [ ! -d "$DICOM" ]; then
        "$PYTHON" "$PROJECT/scripts/phantom_dicom.py" --out "$DICOM"
    fi
fi
[ -d "$DICOM" ] || fail "$DICOM is no folder: give the folder of one DICOM series"
COUNT="$(find "$DICOM" -maxdepth 1 -type f | wc -l)"
SLICES="${2:-$((COUNT / 2)):$((COUNT / 2 + 2))}"

step "1 of 3. What would be done, how large it gets and how long it takes"
super_resolve --input "$DICOM" --slices "$SLICES" --results_dir "$OUT" --dry_run | tail -n 2

step "2 of 3. Super-resolution, with the weights that come with the project or your own last model"
super_resolve --input "$DICOM" --slices "$SLICES" --results_dir "$OUT" --overwrite \
    --output_format dicom

step "3 of 3. Look at it"
echo "in a browser:    $OUT/index.html"
echo "in ITK-SNAP:     $OUT/SR.itksnap"
echo "in a DICOM viewer: $OUT/SR_dicom"
