#!/usr/bin/env bash
# Installs the peers into a Python environment and makes their models in its folder `models`.
#
#   benches/peers/setup.sh DIR
#
# Runs again where something is missing; models that are there stay.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
here=$(dirname "$0")
env=$1

PEERS=(ai-edge-litert==2.3.0 openvino==2026.4.1 onnxruntime==1.32.0 ncnn==1.0.20261020)
# `flatbuffers` and `onnx` write the models.
TOOLS=(numpy==2.4.6 flatbuffers==25.12.19 onnx==1.23.2)

[ -x "$env/bin/python" ] || python3 -m venv "$env"
"$env/bin/python" -m pip install --quiet --disable-pip-version-check "${PEERS[@]}" "${TOOLS[@]}"
if [ ! -d "$env/models" ]; then
    # A folder of another name until it is complete.
    "$env/bin/python" "$here/models.py" "$env/models.part"
    mv "$env/models.part" "$env/models"
fi
echo "peers and models are in $env; next: benches/peers/compare.py --env $env"
