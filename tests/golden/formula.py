"""Weights and inputs that the Python scripts and the Rust tests both compute exactly.

Every value follows from the tensor's name and shape alone, so no weight is stored.
Element `i` (C order, in the crate's layout) of the tensor `name` starts from

    z = mix(fnv1a64(name) + (i + 1) * 0x9E3779B97F4A7C15)    mod 2^64
    u = (z >> 40) / 2^24                                      in [0, 1)

where `mix` is the finaliser of splitmix64. The end of the name gives its role:

    *.running_var, *.bn.weight    0.5 + u
    *.running_mean                (u - 0.5) / 2
    *.bias                        u - 0.5
    other *.weight                (2u - 1) * scale(fan_in)
    anything else (an input)      2u - 1

Layouts: convolution [kh, kw, in / groups, out], depthwise [kh, kw, C, M],
linear [in, out], activations [N, H, W, C].

Usage: imported by the other scripts; `python formula.py` checks a few values.
"""

import math

import numpy as np

GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)


def fnv1a64(name: str) -> int:
    """Hashes the UTF-8 bytes of `name` with 64-bit FNV-1a."""
    hashed = 0xCBF29CE484222325
    for byte in name.encode():
        hashed = ((hashed ^ byte) * 0x100000001B3) % 2**64
    return hashed


def uniform(name: str, shape: list[int]) -> np.ndarray:
    """Returns u in [0, 1) for every element; exact in f32 and f64."""
    index = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
    z = np.uint64(fnv1a64(name)) + index * GOLDEN_RATIO
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)) / 2.0**24).reshape(shape)


def scale(fan_in: int) -> float:
    """Returns the power of two nearest to sqrt(6 / fan_in).

    That is He's bound: with a smaller one, the input no longer matters at the end of a
    network. In integers, because fan_in = 3, 12, 48, 192 lie halfway between two powers
    (the smaller wins).
    """
    power, limit = 2.0, 3
    while fan_in >= limit:
        power, limit = power / 2, limit * 4
    return power


def fan_in(name: str, shape: list[int]) -> int:
    """Returns the inputs per output of a weight; depthwise is known by its name."""
    if name.split(".")[-2].startswith("depthwise"):
        return math.prod(shape[:2])
    return math.prod(shape[:-1])


def tensor(name: str, shape: list[int]) -> np.ndarray:
    """Returns the f64 values of the tensor `name`."""
    u = uniform(name, shape)
    if name.endswith((".running_var", ".bn.weight")):
        return 0.5 + u
    if name.endswith(".running_mean"):
        return (u - 0.5) / 2
    if name.endswith(".bias"):
        return u - 0.5
    if name.endswith(".weight"):
        return (2 * u - 1) * scale(fan_in(name, shape))
    return 2 * u - 1


def check() -> None:
    """Compares with published FNV-1a values and with the definition of `scale`."""
    assert fnv1a64("") == 0xCBF29CE484222325
    assert fnv1a64("a") == 0xAF63DC4C8601EC8C
    assert fnv1a64("foobar") == 0x85944171F73967E8
    for n in range(1, 100_000):
        distance = abs(math.log2(scale(n) / math.sqrt(6 / n)))
        assert distance <= 0.5 + 1e-12, n
    assert [scale(n) for n in (1, 3, 9, 12, 48, 192)] == [2, 1, 1, 0.5, 0.25, 0.125]


if __name__ == "__main__":
    check()
    for name, shape in [
        ("features.0.weight", [3, 3, 3, 32]),
        ("features.1.depthwise.weight", [3, 3, 32, 1]),
        ("features.0.bn.running_var", [32]),
        ("embedded.input", [1, 224, 224, 3]),
    ]:
        print(name, shape, tensor(name, shape).ravel()[:3].tolist())
