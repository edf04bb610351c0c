#!/usr/bin/env bash
# Everything that needs a GPU, in one call: checks, timings beside timm, and full trainings.
#
#   scripts/on_gpu.sh OUT [PART...]      parts: check attention model train; all by default
#
# Needs `pip install -e '.[cuda,test]'`; `model` also torch and timm, `train` also a prepared CIFAR-10
# (TFDS_DATA_DIR). Where a part fails the next one still runs; what each printed is in OUT/PART.log.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?where to write: scripts/on_gpu.sh OUT}
shift
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/hardware.txt"
python -c 'import flax, jax; print("jax", jax.__version__, "flax", flax.__version__)' \
    | tee -a "$out/hardware.txt"

part() {
    local name=$1
    shift
    echo "== $name: $*"
    "$@" >"$out/$name.log" 2>&1 && echo "$name: ok" || echo "$name: failed, see $out/$name.log"
}

for name in ${*:-check attention model train}; do
    case $name in
        check)  # the published models to 1e-5, and every implementation of attention against explicit
            JAX_PLATFORMS=cuda JAX_DEFAULT_MATMUL_PRECISION=highest part check \
                python -m pytest -n 0 tests/test_golden.py \
                    tests/layers/test_attention.py tests/ops ;;
        attention)
            part attention python scripts/benchmark.py attention --batch 32 --dtype bfloat16 \
                --tokens 64 196 576 1024 4096 \
                --implementations explicit chunked fused --out "$out" ;;
        model)
            part model python scripts/benchmark.py model --batch 128 --dtype bfloat16 \
                --models vit_small_patch16 vit_base_patch16 cait_xxs24 cait_s24 patchconvnet_s60 \
                --implementations auto explicit chunked fused --peer "$(command -v python)" --out "$out" ;;
        train)
            for experiment in patchconvnet_cifar10 vit_cifar10; do
                part "$experiment" python scripts/train.py "$experiment" --model.dtype bfloat16 \
                    --out "$out/$experiment"
            done
            part seeds python scripts/ablate.py digits --seeds 5 --out "$out/digits_5"
            part seed python scripts/ablate.py digits --seeds 1 --out "$out/digits_1" ;;
        *) echo "no part $name" ;;
    esac
done
