#!/usr/bin/env python3
"""Times training steps of the peers and of one command in turn, and compares them: train.py [OPTIONS] [-- COMMAND]

As compare.py, but of a training step of MobileNetV2 1.0, and of memory beside time. COMMAND may be anything that prints
a line with `median_ms=NUMBER` and `peak_mb=NUMBER`; without one it is this crate's `train_step` example.
"""

import re
import sys

from common import COMMAND, HERE, example, output_of, parser_of, pinning, python_of, read_options, show

PEERS = ["torch", "keras"]
UNITS = {"median_ms": "ms", "peak_mb": "MB"}
Figures = dict[str, list[float]]


def figures_of(words: list[str]) -> dict[str, float]:
    output = output_of(words)
    found = {key: re.search(rf"{key}=([0-9.]+)", output) for key in UNITS}
    if missing := [key for key, match in found.items() if not match]:
        sys.exit(f"no {' and no '.join(missing)} in the output of: {' '.join(words)}\n{output}")
    return {key: float(match[1]) for key, match in found.items()}


def main() -> None:
    parser = parser_of(__doc__, PEERS)
    parser.add_argument("--batch", type=int, default=16, help="images per step (default 16)")
    parser.add_argument("--size", type=int, default=224, help="rows and columns of an image (default 224)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each process (default 5)")
    options, command = read_options(parser, ["batch", "size", "steps"])
    python = python_of(options.env, "--train")

    names = ("batch", "size", "threads", "steps")
    settings = [word for name in names for word in (f"--{name}", str(getattr(options, name)))]
    if not command:
        command = [example("train_step"), *settings]
    pin = pinning(options.threads)
    jobs = {name: [*pin, python, str(HERE / "train_peer.py"), name, *settings] for name in options.peers}
    jobs[COMMAND] = [*pin, *command]

    figures: dict[str, Figures] = {key: {name: [] for name in jobs} for key in UNITS}
    for _ in range(options.rounds):
        for name, words in jobs.items():
            for key, figure in figures_of(words).items():
                figures[key][name].append(figure)
    print(" ".join(f"{name}={getattr(options, name)}" for name in (*names, "rounds")))
    for key, by_name in figures.items():
        show(by_name, UNITS[key], f"{key} ")


if __name__ == "__main__":
    main()
