"""Times one model in one peer, in this process: peer.py PEER MODEL [OPTIONS]

Prints a line with `median_ms=`; with --logits, what the model says of the image, so that peers can be compared. Runs in
the Python of the folder that setup.sh made, and finds the models there.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

WARM_UP = 5
Run = Callable[[], object]


def xnnpack(model: Path, threads: int, image) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    net = Interpreter(str(model.with_suffix(".tflite")), num_threads=threads)
    net.allocate_tensors()
    net.set_tensor(net.get_input_details()[0]["index"], image)
    output = net.get_output_details()[0]["index"]

    def run():
        net.invoke()
        return net.get_tensor(output)

    return run


def openvino(model: Path, threads: int, image) -> Run:
    import openvino

    # Where the processor has bfloat16, that is the default.
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    net = openvino.Core().compile_model(str(model.with_suffix(".onnx")), "CPU", options)
    request = net.create_infer_request()
    request.set_input_tensor(openvino.Tensor(nchw(image)))
    return lambda: request.infer(share_outputs=True)[0]


def onnxruntime(model: Path, threads: int, image) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    path = str(model.with_suffix(".onnx"))
    net = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {net.get_inputs()[0].name: nchw(image)}
    return lambda: net.run(None, feed)[0]


def ncnn(model: Path, threads: int, image) -> Run:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    # Weights and activations stay f32.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    for load, suffix in ((net.load_param, ".param"), (net.load_model, ".bin")):
        if load(str(model.with_suffix(suffix))) != 0:
            sys.exit(f"ncnn cannot load {model.with_suffix(suffix)}")
    source, target = net.input_names()[0], net.output_names()[0]
    # A Mat borrows the array's memory without keeping the array alive.
    array = nchw(image)[0]
    pixels = ncnn.Mat(array).clone()

    def run():
        extractor = net.create_extractor()
        extractor.input(source, pixels)
        return extractor.extract(target)[1]

    return run


PEERS = {run.__name__: run for run in (xnnpack, openvino, onnxruntime, ncnn)}


def nchw(image):
    import numpy as np

    return np.ascontiguousarray(image.transpose(0, 3, 1, 2))


def pattern():
    """The image of `examples/latency.rs`, [1, 224, 224, 3]."""
    import numpy as np

    h, w, c = np.ogrid[:224, :224, :3]
    return (((h * 31 + w * 17 + c * 7) % 255).astype("f4") / 127 - 1)[None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("model", help="v1_100, v2_100 or v2_035")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=60, help=f"timed runs after {WARM_UP} that warm up (default 60)")
    parser.add_argument("--logits", action="store_true", help="print the 1000 logits as JSON instead")
    options = parser.parse_args()

    setup = f"run {Path(__file__).with_name('setup.sh')} DIR, and use DIR/bin/python or compare.py --env DIR"
    models = Path(sys.prefix) / "models"
    if not list(models.glob(f"{options.model}.*")):
        sys.exit(f"no model {options.model} in {models}: {setup}")
    # OpenMP, which ncnn uses, reads this when it is loaded.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    try:
        run = PEERS[options.peer](models / options.model, options.threads, pattern())
    except ImportError as error:
        sys.exit(f"{options.peer} is not installed ({error}): {setup}")

    if options.logits:
        import numpy as np

        print(json.dumps(np.array(run()).ravel().tolist(), allow_nan=False))
        return
    for _ in range(WARM_UP):
        run()
    times = []
    for _ in range(options.runs):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    settings = f"threads={options.threads} runs={options.runs}"
    print(f"{options.peer} {options.model} {settings} median_ms={statistics.median(times):.3f} min_ms={min(times):.3f}")


if __name__ == "__main__":
    main()
