"""Times one peer's training steps on MobileNetV2 1.0, in this process: train_peer.py PEER [OPTIONS]

A step is forward, softmax cross-entropy over 1000 classes, backward and SGD with momentum, in `f32`, on images and labels
that are in memory. Prints a line with `median_ms=` and `peak_mb=`, the most memory the process ever had resident, in
mebibytes. Runs in the Python of the folder that `setup.sh --train` made.
"""

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

# TensorFlow traces its graph in the first.
WARM_UP = 2
CLASSES = 1000
Step = Callable[[], object]


def torch(batch: int, size: int, threads: int) -> Step:
    """PyTorch as its own guide tells to run convolutions on a CPU: eager, channels innermost."""
    import torch
    import torchvision

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = torchvision.models.mobilenet_v2(weights=None, num_classes=CLASSES)
    net = net.train().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch,))
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=4e-5)

    def step():
        optimizer.zero_grad(set_to_none=True)
        criterion(net(images), labels).backward()
        optimizer.step()

    return step


def keras(batch: int, size: int, threads: int) -> Step:
    """Keras on TensorFlow: `train_on_batch`, compiled to a graph. No weight decay: it would be a pass of its own."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    import keras
    import numpy as np

    net = keras.applications.MobileNetV2(weights=None, input_shape=(size, size, 3), classes=CLASSES)
    net.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), loss="sparse_categorical_crossentropy")
    random = np.random.default_rng(0)
    images = random.normal(size=(batch, size, size, 3)).astype("f4")
    labels = random.integers(0, CLASSES, batch)
    return lambda: net.train_on_batch(images, labels)


PEERS = {peer.__name__: peer for peer in (torch, keras)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--batch", type=int, default=16, help="(default 16)")
    parser.add_argument("--size", type=int, default=224, help="rows and columns of an image (default 224)")
    parser.add_argument("--threads", type=int, default=1, help="(default 1)")
    parser.add_argument("--steps", type=int, default=5, help=f"timed steps after {WARM_UP} that warm up (default 5)")
    options = parser.parse_args()

    # What OpenMP, which PyTorch uses, takes when it is loaded.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    try:
        step = PEERS[options.peer](options.batch, options.size, options.threads)
    except ImportError as error:
        setup = Path(__file__).with_name("setup.sh")
        sys.exit(f"{options.peer} is not installed ({error}): run {setup} DIR --train, and use DIR/bin/python")

    for _ in range(WARM_UP):
        step()
    times = []
    for _ in range(options.steps):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    # In kibibytes on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    settings = " ".join(f"{name}={getattr(options, name)}" for name in ("batch", "size", "threads", "steps"))
    print(f"{options.peer} {settings} median_ms={statistics.median(times):.1f} peak_mb={peak:.0f}")


if __name__ == "__main__":
    main()
