#!/usr/bin/env bash
# Everything that needs a GPU, in one go and within 20 minutes: finds what is installed, runs what it can, says what it
# left out, and writes RESULTS/*.json and RESULTS/gpu.md.
#
#   benchmarks/gpu/run.sh [RESULTS]        PYTHON=...  the interpreter with grip-edge (default: .venv or python3)
#
# 1  the kernels of BudgetSelect: nvcc, the numpy oracle, compute-sanitizer, time against torch.topk + sort + gather
# 2  the runtime's use of CUDA: memory, copies, a recorded graph of launches
# 3  ONNX Runtime on CUDA: llava-tiny at budgets 0.1 to 1.0, answers against the CPU, latency
# 4  TensorRT or TensorRT-RTX: engines of llava-tiny, answers against the CPU, latency
# 5  ONNX Runtime on TensorRT-RTX's provider: the same
# 6  the shape of LLaVA-1.5-7B with few layers on ONNX Runtime's CUDA, budgets 0.1 to 1.0
set -uo pipefail
cd "$(dirname "$0")/../.."
OUT=$(mkdir -p "${1:-gpu-results}" && cd "${1:-gpu-results}" && pwd)
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
NATIVE=grip_edge/plugin/native
rm -f "$OUT"/*.json "$OUT"/skipped.txt
: > "$OUT/skipped.txt"
export PYTHONUNBUFFERED=1

ALL_SECONDS=${ALL_SECONDS:-1200}
skip() { echo "skipped: $1" | tee -a "$OUT/skipped.txt"; }
run() { # seconds, name, command...
    local limit=$1 name=$2 left=$((ALL_SECONDS - SECONDS)) code=0; shift 2
    [ "$left" -ge 10 ] || { skip "$name: the time was up"; return; }
    echo "== $name"
    timeout -k 10 "$((left < limit ? left : limit))" "$@" > "$OUT/$name.log" 2>&1 || code=$?
    case $code in
        0) ;;
        124 | 137) skip "$name took longer than it may" ;;
        *) skip "$name ended with code $code: $(tail -1 "$OUT/$name.log" | cut -c1-200)" ;;
    esac
}
has() { "$PYTHON" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$1') is None)"; }

if ! command -v nvidia-smi > /dev/null || ! nvidia-smi -L > "$OUT/device.txt" 2>&1; then
    skip "there is no NVIDIA GPU on this machine (nvidia-smi)"
    "$PYTHON" benchmarks/gpu/report.py "$OUT"
    exit 1
fi
nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total,power.limit --format=csv,noheader > "$OUT/device.txt"
cat "$OUT/device.txt"
CAPABILITY=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)

LIBRARY=$OUT/libgrip_budget_select.so
rm -f "$LIBRARY"
if command -v nvcc > /dev/null; then
    run 180 nvcc nvcc -std=c++17 -O3 -shared -Xcompiler -fPIC -cudart static -lineinfo \
        -gencode "arch=compute_$CAPABILITY,code=sm_$CAPABILITY" "$NATIVE/budget_select.cu" -o "$LIBRARY"
else
    skip "the plugin's kernels need nvcc"
fi
if [ -f "$LIBRARY" ]; then
    if has torch; then
        run 240 plugin "$PYTHON" benchmarks/gpu/check_plugin.py "$LIBRARY" "$OUT/plugin.json"
        if command -v compute-sanitizer > /dev/null; then
            for tool in memcheck racecheck synccheck; do
                run 120 "sanitizer-$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 \
                    "$PYTHON" benchmarks/gpu/check_plugin.py "$LIBRARY" "$OUT/sanitizer-$tool.json" --quick
            done
        else
            skip "compute-sanitizer is not installed"
        fi
    else
        skip "the check of the kernels needs torch"
    fi
fi

if ! "$PYTHON" -c "import grip_edge.runtime" 2> "$OUT/import.log"; then
    skip "grip-edge's own packages are missing ($(tail -1 "$OUT/import.log")): the rest was not tried"
    "$PYTHON" benchmarks/gpu/report.py "$OUT" && cat "$OUT/gpu.md"
    exit 1
fi
if has cuda && has cuda.bindings; then
    run 60 driver "$PYTHON" benchmarks/gpu/check_driver.py "$OUT/driver.json"
else
    skip "the check of the runtime's driver needs cuda-bindings"
fi

if "$PYTHON" -c "import onnxruntime as o, sys; sys.exit('CUDAExecutionProvider' not in o.get_available_providers())"; then
    BUNDLE=$OUT/bundle
    [ -f "$BUNDLE/grip.json" ] || run 240 export "$PYTHON" -m grip_edge.cli.main export --model llava-tiny \
        --budget-range 0.1,0.5 --target cuda --precision fp16 --out "$BUNDLE" --force
    run 180 ort-cuda "$PYTHON" benchmarks/gpu/end_to_end.py "$BUNDLE" onnxruntime-cuda "$OUT/ort-cuda.json"
    SEVEN_B=yes
else
    skip "ONNX Runtime has no CUDA provider here (pip install onnxruntime-gpu)"
fi

TARGET=
has tensorrt_rtx && TARGET=rtx
if has tensorrt; then
    VERSION=$("$PYTHON" -c "import tensorrt; print('.'.join(tensorrt.__version__.split('.')[:2]))")
    case $VERSION in 11.*) TARGET=tensorrt-11 ;; *) TARGET=tensorrt-$VERSION ;; esac
fi
if [ -n "$TARGET" ]; then
    ENGINES=$OUT/bundle-$TARGET
    [ -f "$ENGINES/grip.json" ] || run 240 "export-$TARGET" "$PYTHON" -m grip_edge.cli.main export --model llava-tiny \
        --budget-range 0.1,0.5 --target "$TARGET" --precision fp16 --out "$ENGINES" --force
    run 240 "build-$TARGET" "$PYTHON" -m grip_edge.cli.main build "$ENGINES" --device "sm$CAPABILITY"
    run 180 "tensorrt" "$PYTHON" benchmarks/gpu/end_to_end.py "$ENGINES" tensorrt "$OUT/tensorrt.json"
else
    skip "neither tensorrt nor tensorrt_rtx is installed"
fi
if has onnxruntime_ep_nv_tensorrt_rtx; then
    ENGINES=$OUT/bundle-rtx
    [ -f "$ENGINES/grip.json" ] || run 240 export-rtx "$PYTHON" -m grip_edge.cli.main export --model llava-tiny \
        --budget-range 0.1,0.5 --target rtx --precision fp16 --out "$ENGINES" --force
    run 180 ort-rtx "$PYTHON" benchmarks/gpu/end_to_end.py "$ENGINES" onnxruntime-rtx "$OUT/ort-rtx.json"
else
    skip "ONNX Runtime has no TensorRT-RTX provider here (pip install onnxruntime-ep-nv-tensorrt-rtx)"
fi
[ -z "${SEVEN_B:-}" ] || run 240 seven-b "$PYTHON" benchmarks/gpu/seven_b_shape.py "$OUT/seven-b.json"
"$PYTHON" benchmarks/gpu/report.py "$OUT" && cat "$OUT/gpu.md"
