#!/usr/bin/env python3
"""Times the peers and one command in turn, and prints how they compare: compare.py [OPTIONS] [-- COMMAND]

Every measurement is a process of its own. A round measures each peer once and COMMAND once, and its ratios are taken
within it, so that a machine that is busy for a while slows both sides of a ratio. COMMAND may be anything that prints
a line with `median_ms=NUMBER`; without one it is this crate's `latency` example.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LATENCY = ROOT / "target/release/examples/latency"
MODELS = ["v1_100", "v2_100", "v2_035"]
PEERS = ["xnnpack", "openvino", "onnxruntime", "ncnn"]
COMMAND = "command"
# Of the largest logit. Peers that run the same net in f32 differ by 1e-6 or so; half precision differs by more.
TOLERANCE = 1e-3


def output_of(words: list[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError as error:
        sys.exit(f"cannot run {words[0]}: {error.strerror}")
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def time_of(words: list[str]) -> float:
    output = output_of(words)
    found = re.search(r"median_ms=([0-9.]+)", output)
    if not found:
        sys.exit(f"no median_ms= in the output of: {' '.join(words)}\n{output}")
    return float(found[1])


def pinning(threads: int) -> list[str]:
    """What to put before a command to keep one thread on one core."""
    if threads > 1:
        return []
    if not shutil.which("taskset"):
        print("warning: no taskset here, so the thread may move between cores", file=sys.stderr)
        return []
    return ["taskset", "-c", str(min(os.sched_getaffinity(0)))]


def spread(values: list[float]) -> str:
    return " ".join(f"{value:8.3f}" for value in (min(values), median(values), max(values)))


def check(model: str, peers: dict[str, list[str]]) -> bool:
    """Whether all peers say the same of the same image."""
    logits = {name: json.loads(output_of([*words, "--logits"])) for name, words in peers.items()}
    first, *others = logits
    largest = max(map(abs, logits[first]))
    differences = {
        name: max(abs(a - b) for a, b in zip(logits[first], logits[name], strict=True)) / largest for name in others
    }
    listed = ", ".join(f"{name} {difference:.1e}" for name, difference in differences.items())
    print(f"{model}: largest difference from {first}, of the largest logit {largest:.3f}: {listed}")
    return max(differences.values(), default=0) <= TOLERANCE


def compare(title: str, jobs: dict[str, list[str]], rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, words in jobs.items():
            times[name].append(time_of(words))

    def ratios(name: str) -> list[float]:
        return [ours / theirs for ours, theirs in zip(times[COMMAND], times[name], strict=True)]

    ranking = sorted(times, key=lambda name: median(times[name]))
    print(title)
    print(f"{'':12}{'min':>8} {'median':>8} {'max':>8} ms    {'min':>8} {'median':>8} {'max':>8} {COMMAND} / peer")
    for name in ranking:
        print(f"{name:12}{spread(times[name])}" + ("" if name == COMMAND else f"       {spread(ratios(name))}"))
    best = next(name for name in ranking if name != COMMAND)
    print(f"best peer {best}: ratio={median(ratios(best)):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=Path, default=ROOT / "target/peers", help="folder of setup.sh (target/peers)")
    parser.add_argument("--model", choices=MODELS, default="v2_100", help="(default v2_100)")
    parser.add_argument("--threads", type=int, default=1, help="one is kept on one core (default 1)")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--runs", type=int, default=60, help="timed runs of each process (default 60)")
    parser.add_argument("--peers", default=",".join(PEERS), help="a shorter list, such as xnnpack,ncnn")
    parser.add_argument("--check", action="store_true", help="time nothing: do all peers compute the same?")
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    options, command = parser.parse_args(words[:split]), words[split + 1 :]
    peers = options.peers.split(",")
    if unknown := set(peers) - set(PEERS):
        parser.error(f"unknown peer {', '.join(sorted(unknown))}, expected some of {', '.join(PEERS)}")
    if min(options.threads, options.rounds, options.runs) < 1:
        parser.error("--threads, --rounds and --runs begin at 1")
    python = options.env / "bin/python"
    if not python.exists():
        sys.exit(f"no peers in {options.env}: run {HERE / 'setup.sh'} {options.env}")

    settings = ["--threads", str(options.threads), "--runs", str(options.runs)]
    pin = pinning(options.threads)

    def jobs(model: str) -> dict[str, list[str]]:
        return {name: [*pin, str(python), str(HERE / "peer.py"), name, model, *settings] for name in peers}

    if options.check:
        if len(peers) < 2:
            parser.error("--check takes two peers or more")
        # A list, so that a difference does not hide the models after it.
        sys.exit(0 if all([check(model, jobs(model)) for model in MODELS]) else "the peers differ")
    if not command:
        if not LATENCY.exists():
            sys.exit(f"{LATENCY} is not there: cargo build --release --example latency")
        command = [str(LATENCY), "--model", options.model, *settings]
    title = f"{options.model} threads={options.threads} rounds={options.rounds} runs={options.runs}"
    compare(title, jobs(options.model) | {COMMAND: [*pin, *command]}, options.rounds)


if __name__ == "__main__":
    main()
