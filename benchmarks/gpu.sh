#!/usr/bin/env bash
# What a GPU is asked for: is it right, how fast is it, and weights of the paper's own method.
#
#   bash benchmarks/gpu.sh OUT data right fast volume weights train
#
# data: phantom patients 101 to 105 and 201 to 205, made beside what follows. right: the tests that
# need a GPU. fast: benchmarks/gpu.py. volume: a volume end to end. weights: sr_x8, then sr_x4,
# trained on from weights/ for SECONDS_WEIGHTS in all, with CLINICAL, a real CT, as clinical data.
# train: sr_cyclegan_x8 for SECONDS_TRAIN, as many steps as `fast` found to fit.
#
# DEVICE=cpu tries everything at small sizes. PYTHON, PYTEST_ADDOPTS, SLICES, EDGE and SECONDS_...
# change what they name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$1
shift
python=${PYTHON:-python3}
mkdir -p "$out"
phantom=${PHANTOM:-$out/phantom}
ids=all
tiny=()
size=(96 96 16)
networks=()
if [ "${DEVICE:-cuda}" = cpu ]; then
    ids=-1
    tiny=(--tiny)
    size=(32 32 4)
    networks=(--ngf 8 --ndf 8)
fi

warm() { # compiles the kernels of the published sizes while the tests run
    "$python" - "$1" <<'PROGRAM'
import sys
from benchmarks.gpu import prepared_model
from util.devices import choose_devices
model = prepared_model(sys.argv[1], 1, choose_devices("all")[0], False)
model.graphed = None
model.optimize_parameters()
PROGRAM
}

train() {
    local engine steps seconds=${SECONDS_TRAIN:-120}
    if [ -n "${DEADLINE:-}" ]; then # seconds since 1970, by which all is to be done
        seconds=$((DEADLINE - $(date +%s) - 50))
    fi
    # Milliseconds of a step decide how many there are; the schedule's first third keeps the rate.
    read -r engine steps < <("$python" - "$out/gpu.json" "$seconds" <<'PROGRAM'
import json, sys
rows = {row["name"]: row for row in json.load(open(sys.argv[1])) if row["table"] == "step, batch 4"}
ours, layers = rows.get("ours, bf16", {}), rows.get("layers, bf16", {})
good = "ms" in ours and ours["off"] < 0.1
took = ours["ms"] if good else layers.get("ms", 9000)
print("fused" if good else "eager", max(3, int(float(sys.argv[2]) * 1e3 / took / 3)))
PROGRAM
    )
    echo "engine $engine, $steps steps an epoch, three epochs"
    # A signal ends it in order where the guess was wrong, and what is there is exported.
    timeout -s INT $((seconds + 25)) "$python" train.py --preset paper --engine "$engine" \
        --gpu_ids "$ids" --name sr_cyclegan_x8 --checkpoints_dir "$out/checkpoints" --overwrite \
        --precision bf16 --lr 2e-4 --ema 0.999 \
        --niter 1 --niter_decay 2 --batch_num $((steps * 4 / 5 + 1)) "${networks[@]}" \
        --all_clinical_paths "$phantom"/10?/clinical.nii --all_micro_paths "$phantom"/20?/micro.nii \
        --windows micro=2500:12250 --save_epoch_freq 1 --print_freq 200 --no_html \
        2>&1 | tr '\r' '\n' | grep -v "step/s" || true
    "$python" scripts/export_weights.py --checkpoint "$out/checkpoints/sr_cyclegan_x8/latest.pt" \
        --out "$out/sr_cyclegan_x8.safetensors" --licence "BSD 3-Clause" \
        --training "phantom 101 to 105, 201 to 205; benchmarks/gpu.sh train, $((3 * steps)) steps"
    cp "$out/checkpoints/sr_cyclegan_x8/loss_log.csv" "$out/loss_log.csv"
}

further() { # NAME STEPS EPOCHS: trains weights/NAME on, so many steps an epoch
    local clinical=${CLINICAL:?a real CT is needed} words
    if [ "$1" = sr_x4 ]; then
        words=(--dataset_mode public_2D --micro_patch_size 96 --all_clinical_paths "$clinical")
    else
        words=(--clinical_patch_size 24 --windows micro=2500:12250
            --all_clinical_paths "$clinical" "$phantom"/10?/clinical.nii
            --all_micro_paths "$phantom"/20?/micro.nii)
    fi
    "$python" train.py --preset best --gpu_ids "$ids" --name "$1" --checkpoints_dir "$out/further" \
        --overwrite --init_weights "weights/$1.safetensors" --batch_size "$batch" --lr 4e-4 --ema 0.999 \
        --niter 1 --niter_decay $(($3 - 1)) --batch_num 1000000 --max_dataset_size $(($2 * batch)) \
        --no_html --print_freq 50 "${words[@]}" 2>&1 | tr '\r' '\n' | grep -v "step/s" >"$out/$1.txt"
}

weights() {
    local batch=${BATCH:-32} few=10 many=${TRIAL_STEPS:-400} name steps started took room spent
    local seconds=$((${SECONDS_WEIGHTS:-300} / 2))
    for name in sr_x8 sr_x4; do
        took=()
        for steps in "$few" "$few" "$many"; do # kernels are compiled; the start alone; with steps
            started=$(date +%s%N)
            further "$name" "$steps" 2
            took+=($((($(date +%s%N) - started) / 1000000)))
        done
        room=$((seconds * 950 - took[1])) spent=$((took[2] - took[1]))
        # A trial too short to tell, or no time: a few steps, so that all is tried at least.
        steps=$((room > 0 && spent > 0 ? 2 * (many - few) * room / spent / 5 + 1 : few))
        echo "$name: ${took[1]} ms to start, $((2 * many)) steps ${took[2]} ms; 5 epochs of $steps"
        further "$name" "$steps" 5
        "$python" scripts/export_weights.py --checkpoint "$out/further/$name/latest.pt" \
            --out "$out/$name.safetensors" --licence "weights: BSD-3-Clause" \
            --training "benchmarks/gpu.sh weights, $((5 * steps)) steps of $batch patches"
        cp "$out/further/$name/loss_log.csv" "$out/$name.csv"
    done
}

for stage in "$@"; do
    echo "== $stage, $(date +%T)"
    case $stage in
    data)
        rm -rf "$phantom"
        (printf '%s\n' 101 102 103 104 105 201 202 203 204 205 | nice -n 10 xargs -P 12 -I {} \
            env OMP_NUM_THREADS=1 "$python" -m data.phantom --seed {} --size "${size[@]}" \
            --out "$phantom/{}" --processes 1 >"$out/phantom.txt" 2>&1
            echo "== data is there, $(date +%T)") &
        data=$!
        ;;
    right)
        if [ "${DEVICE:-cuda}" != cpu ]; then
            warm "ours, bf16" &
            warm "ours, fp32" &
        fi
        # By name, since other files import what the card's machine may lack.
        mapfile -t files < <(grep -rl "mark.gpu" tests --include=test_*.py)
        timeout "${SECONDS_RIGHT:-100}" "$python" -m pytest -q -n "${WORKERS:-8}" --tb=short \
            -m gpu -p no:cacheprovider "${files[@]}" 2>&1 | tail -60 || true
        wait $(jobs -p | grep -v "^${data:-none}$") || true
        ;;
    fast)
        "$python" -m benchmarks.gpu --out "$out" --gpu_ids "$ids" "${tiny[@]}" \
            --seconds "${SECONDS_FAST:-240}" || true
        ;;
    volume)
        "$python" -m benchmarks.volume --gpu_ids "$ids" --precision bf16 \
            --slices "${SLICES:-64}" --edge "${EDGE:-512}" || true
        ;;
    weights)
        wait
        weights
        ;;
    train)
        wait
        train
        ;;
    *)
        echo "error: stage $stage, expected data, right, fast, volume, weights or train" >&2
        exit 2
        ;;
    esac
done
