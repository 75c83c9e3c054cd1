"""What compare.py and train.py share: their options, the processes they run, and the table of a comparison."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COMMAND = "command"


def parser_of(description: str, peers: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=Path, default=ROOT / "target/peers", help="folder of setup.sh (target/peers)")
    parser.add_argument("--threads", type=int, default=1, help="one is kept on one core (default 1)")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--peers", default=",".join(peers), help=f"a shorter list, such as {peers[0]}")
    return parser


def read_options(parser: argparse.ArgumentParser, counts: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, with their peers as a list, and the words behind `--`; options in `counts` begin at 1, as rounds do."""
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    options, command = parser.parse_args(words[:split]), words[split + 1 :]
    known = parser.get_default("peers").split(",")
    options.peers = options.peers.split(",")
    if unknown := set(options.peers) - set(known):
        parser.error(f"unknown peer {', '.join(sorted(unknown))}, expected some of {', '.join(known)}")
    for name in ("threads", "rounds", *counts):
        if getattr(options, name) < 1:
            parser.error(f"--{name} begins at 1")
    return options, command


def python_of(env: Path, *flags: str) -> str:
    """The Python that setup.sh made with these flags."""
    python = env / "bin/python"
    if not python.exists():
        sys.exit(f"no peers in {env}: run {' '.join(map(str, (HERE / 'setup.sh', env, *flags)))}")
    return str(python)


def example(name: str) -> str:
    path = ROOT / "target/release/examples" / name
    if not path.exists():
        sys.exit(f"{path} is not there: cargo build --release --example {name}")
    return str(path)


def output_of(words: list[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError as error:
        sys.exit(f"cannot run {words[0]}: {error.strerror}")
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def pinning(threads: int) -> list[str]:
    """What to put before a command to keep one thread on one core."""
    if threads > 1:
        return []
    if not shutil.which("taskset"):
        print("warning: no taskset here, so the thread may move between cores", file=sys.stderr)
        return []
    return ["taskset", "-c", str(min(os.sched_getaffinity(0)))]


def show(figures: dict[str, list[float]], unit: str, label: str = "") -> None:
    """One table: least, middle and greatest of the rounds, and of their ratios."""

    def spread(values: list[float]) -> str:
        return " ".join(f"{value:8.3f}" for value in (min(values), median(values), max(values)))

    def ratios(name: str) -> list[float]:
        return [ours / theirs for ours, theirs in zip(figures[COMMAND], figures[name], strict=True)]

    ranking = sorted(figures, key=lambda name: median(figures[name]))
    heads = f"{'min':>8} {'median':>8} {'max':>8}"
    print(f"{'':12}{heads} {unit}    {heads} {COMMAND} / peer")
    for name in ranking:
        print(f"{name:12}{spread(figures[name])}" + ("" if name == COMMAND else f"       {spread(ratios(name))}"))
    best = next(name for name in ranking if name != COMMAND)
    print(f"best peer {best}: {label}ratio={median(ratios(best)):.3f}")
