#!/usr/bin/env python3
"""Times training steps of the peers and of one command in turn, and compares them: train.py [OPTIONS] [-- COMMAND]

As compare.py, but of a training step of MobileNetV2 1.0, and of memory beside time. COMMAND may be anything that prints
a line with `median_ms=NUMBER` and `peak_mb=NUMBER`; without one it is this crate's `train_step` example.
"""

import argparse
import re
import sys
from pathlib import Path
from statistics import median

from compare import COMMAND, HERE, ROOT, output_of, pinning, spread

TRAIN_STEP = ROOT / "target/release/examples/train_step"
PEERS = ["torch", "keras"]
UNITS = {"median_ms": "ms", "peak_mb": "MB"}
Figures = dict[str, list[float]]


def figures_of(words: list[str]) -> dict[str, float]:
    output = output_of(words)
    found = {key: re.search(rf"{key}=([0-9.]+)", output) for key in UNITS}
    if missing := [key for key, match in found.items() if not match]:
        sys.exit(f"no {' and no '.join(missing)} in the output of: {' '.join(words)}\n{output}")
    return {key: float(match[1]) for key, match in found.items()}


def show(key: str, figures: Figures) -> None:
    """One table: least, middle and greatest of the rounds, and of their ratios."""

    def ratios(name: str) -> list[float]:
        return [ours / theirs for ours, theirs in zip(figures[COMMAND], figures[name], strict=True)]

    ranking = sorted(figures, key=lambda name: median(figures[name]))
    heads = f"{'min':>8} {'median':>8} {'max':>8}"
    print(f"{'':12}{heads} {UNITS[key]}    {heads} {COMMAND} / peer")
    for name in ranking:
        print(f"{name:12}{spread(figures[name])}" + ("" if name == COMMAND else f"       {spread(ratios(name))}"))
    best = next(name for name in ranking if name != COMMAND)
    print(f"best peer {best}: {key} ratio={median(ratios(best)):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=Path, default=ROOT / "target/peers", help="folder of setup.sh (target/peers)")
    parser.add_argument("--batch", type=int, default=16, help="images per step (default 16)")
    parser.add_argument("--size", type=int, default=224, help="rows and columns of an image (default 224)")
    parser.add_argument("--threads", type=int, default=1, help="one is kept on one core (default 1)")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each process (default 5)")
    parser.add_argument("--peers", default=",".join(PEERS), help="a shorter list, such as torch")
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    options, command = parser.parse_args(words[:split]), words[split + 1 :]
    peers = options.peers.split(",")
    if unknown := set(peers) - set(PEERS):
        parser.error(f"unknown peer {', '.join(sorted(unknown))}, expected some of {', '.join(PEERS)}")
    if min(options.batch, options.size, options.threads, options.rounds, options.steps) < 1:
        parser.error("--batch, --size, --threads, --rounds and --steps begin at 1")
    python = options.env / "bin/python"
    if not python.exists():
        sys.exit(f"no peers in {options.env}: run {HERE / 'setup.sh'} {options.env} --train")

    names = ("batch", "size", "threads", "steps")
    settings = [word for name in names for word in (f"--{name}", str(getattr(options, name)))]
    if not command:
        if not TRAIN_STEP.exists():
            sys.exit(f"{TRAIN_STEP} is not there: cargo build --release --example train_step")
        command = [str(TRAIN_STEP), *settings]
    pin = pinning(options.threads)
    jobs = {name: [*pin, str(python), str(HERE / "train_peer.py"), name, *settings] for name in peers}
    jobs[COMMAND] = [*pin, *command]

    figures: dict[str, Figures] = {key: {name: [] for name in jobs} for key in UNITS}
    for _ in range(options.rounds):
        for name, words in jobs.items():
            for key, figure in figures_of(words).items():
                figures[key][name].append(figure)
    print(" ".join(f"{name}={getattr(options, name)}" for name in (*names, "rounds")))
    for key, by_name in figures.items():
        show(key, by_name)


if __name__ == "__main__":
    main()
