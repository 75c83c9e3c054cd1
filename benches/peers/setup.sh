#!/usr/bin/env bash
# Installs the peers into a Python environment and makes their models in its folder `models`.
#
#   benches/peers/setup.sh DIR [--train]
#
# With --train also PyTorch and Keras, which compare.py does not need and train.py does. Runs again where something is
# missing; models that are there stay.
set -euo pipefail
[ $# -eq 1 ] || [ "${*:2}" = --train ] || { echo "usage: $0 DIR [--train]" >&2; exit 2; }
here=$(dirname "$0")
env=$1

PEERS=(ai-edge-litert==2.3.0 openvino==2026.4.1 onnxruntime==1.32.0 ncnn==1.0.20261020)
# `flatbuffers` and `onnx` write the models.
TOOLS=(numpy==2.4.6 flatbuffers==25.12.19 onnx==1.23.2)
TRAINERS=(torch==2.15.0 torchvision==0.29.2 tensorflow-cpu==2.21.0 keras==3.15.1)
# The same PyTorch without CUDA's gigabytes; where it cannot be reached, the usual one.
CPU_WHEELS=https://download.pytorch.org/whl/cpu

[ -x "$env/bin/python" ] || python3 -m venv "$env"
pip() { "$env/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
answers() { timeout 20 "$env/bin/python" -c 'import sys, urllib.request as web; web.urlopen(sys.argv[1], timeout=10)' "$1"; } 2>/dev/null
pip "${PEERS[@]}" "${TOOLS[@]}"
if [ $# -eq 2 ]; then
    # Asked twice at most: pip would try for minutes, for each package.
    if answers "$CPU_WHEELS/torch/" || answers "$CPU_WHEELS/torch/"; then
        pip --extra-index-url "$CPU_WHEELS" "${TRAINERS[@]}" "${TOOLS[@]}"
    else
        echo "$CPU_WHEELS cannot be reached: PyTorch comes with CUDA" >&2
        pip "${TRAINERS[@]}" "${TOOLS[@]}"
    fi
fi
if [ ! -d "$env/models" ]; then
    # A folder of another name until it is complete.
    "$env/bin/python" "$here/models.py" "$env/models.part"
    mv "$env/models.part" "$env/models"
fi
echo "peers and models are in $env; next: benches/peers/compare.py --env $env"
