#!/usr/bin/env python3
"""Times the peers and one command in turn, and prints how they compare: compare.py [OPTIONS] [-- COMMAND]

Every measurement is a process of its own. A round measures each peer once and COMMAND once, and its ratios are taken
within it, so that a machine that is busy for a while slows both sides of a ratio. COMMAND may be anything that prints
a line with `median_ms=NUMBER`; without one it is this crate's `latency` example.
"""

import json
import re
import sys

from common import COMMAND, HERE, example, output_of, parser_of, pinning, python_of, read_options, show

MODELS = ["v1_100", "v2_100", "v2_035"]
PEERS = ["xnnpack", "openvino", "onnxruntime", "ncnn"]
# Of the largest logit. Peers that run the same net in f32 differ by 1e-6 or so; half precision differs by more.
TOLERANCE = 1e-3


def time_of(words: list[str]) -> float:
    output = output_of(words)
    found = re.search(r"median_ms=([0-9.]+)", output)
    if not found:
        sys.exit(f"no median_ms= in the output of: {' '.join(words)}\n{output}")
    return float(found[1])


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
    print(title)
    show(times, "ms")


def main() -> None:
    parser = parser_of(__doc__, PEERS)
    parser.add_argument("--model", choices=MODELS, default="v2_100", help="(default v2_100)")
    parser.add_argument("--runs", type=int, default=60, help="timed runs of each process (default 60)")
    parser.add_argument("--check", action="store_true", help="time nothing: do all peers compute the same?")
    options, command = read_options(parser, ["runs"])
    peers, python = options.peers, python_of(options.env)

    settings = ["--threads", str(options.threads), "--runs", str(options.runs)]
    pin = pinning(options.threads)

    def jobs(model: str) -> dict[str, list[str]]:
        return {name: [*pin, python, str(HERE / "peer.py"), name, model, *settings] for name in peers}

    if options.check:
        if len(peers) < 2:
            parser.error("--check takes two peers or more")
        # A list, so that a difference does not hide the models after it.
        sys.exit(0 if all([check(model, jobs(model)) for model in MODELS]) else "the peers differ")
    if not command:
        command = [example("latency"), "--model", options.model, *settings]
    title = f"{options.model} threads={options.threads} rounds={options.rounds} runs={options.runs}"
    compare(title, jobs(options.model) | {COMMAND: [*pin, *command]}, options.rounds)


if __name__ == "__main__":
    main()
