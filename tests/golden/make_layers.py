"""Writes layers.safetensors and layers.json: single layers and blocks, in f64.

PyTorch computes every case, except that TensorFlow is the source of truth for "same"
padding (PyTorch with the same padding spelled out must agree, or the script stops).
Inputs and weights come from formula.py under the names `<case>.input`, `<case>.weight`,
`<case>.depthwise.bn.bias`, ...; an input is multiplied by the case's `input_scale`.

Usage: python make_layers.py [OUTPUT_DIR]
"""

import itertools
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Callable

import numpy as np
import tensorflow as tf
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

from formula import tensor

Array = np.ndarray
Case = dict[str, Any]
AGREEMENT = 1e-12


class Parameters:
    """Formula tensors of one case; remembers the shapes that were asked for."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.shapes: dict[str, list[int]] = {}

    def __call__(self, name: str, *shape: int) -> Array:
        self.shapes[name] = list(shape)
        return tensor(f"{self.prefix}.{name}", list(shape))


def to_nchw(x: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def to_nhwc(x: torch.Tensor) -> Array:
    return np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1))


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Returns what TensorFlow adds before and after one axis."""
    total = max(
        (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0
    )
    return total // 2, total - total // 2


def explicit_padding(case: Case, x: Array) -> list[int]:
    """Returns [top, bottom, left, right]."""
    if case["padding"] != "same":
        return case["padding"]
    geometry = (case["kernel"], case["stride"], case.get("dilation", 1))
    return [p for size in x.shape[1:3] for p in same_padding(size, *geometry)]


def pad(case: Case, x: Array) -> torch.Tensor:
    top, bottom, left, right = explicit_padding(case, x)
    return F.pad(to_nchw(x), (left, right, top, bottom))


def checked(
    case: Case, by_torch: Array, by_tensorflow: Callable[[], tf.Tensor]
) -> Array:
    """Prefers TensorFlow's value for "same" padding, after comparing both."""
    if case["padding"] != "same":
        return by_torch
    truth = by_tensorflow().numpy()
    difference = np.abs(truth - by_torch).max()
    assert difference < AGREEMENT, (case["name"], difference)
    return truth


def convolve(case: Case, x: Array, weight: Array) -> Array:
    """Convolves with an HWIO weight."""
    stride, dilation, groups = (
        case["stride"],
        case.get("dilation", 1),
        case.get("groups", 1),
    )
    kernel = torch.from_numpy(weight.transpose(3, 2, 0, 1).copy())
    y = F.conv2d(pad(case, x), kernel, stride=stride, dilation=dilation, groups=groups)
    return checked(
        case,
        to_nhwc(y),
        lambda: tf.nn.conv2d(x, weight, stride, "SAME", dilations=dilation),
    )


def convolve_depthwise(case: Case, x: Array, weight: Array) -> Array:
    """Convolves each channel with its own M kernels; weight is [kh, kw, C, M]."""
    stride, dilation = case["stride"], case.get("dilation", 1)
    height, width, channels, multiplier = weight.shape
    kernel = weight.transpose(2, 3, 0, 1).reshape(
        channels * multiplier, 1, height, width
    )
    y = F.conv2d(
        pad(case, x),
        torch.from_numpy(kernel.copy()),
        stride=stride,
        dilation=dilation,
        groups=channels,
    )
    strides, dilations = [1, stride, stride, 1], [dilation, dilation]
    return checked(
        case,
        to_nhwc(y),
        lambda: tf.nn.depthwise_conv2d(x, weight, strides, "SAME", dilations=dilations),
    )


def pointwise(x: Array, weight: Array) -> Array:
    return convolve({"kernel": 1, "stride": 1, "padding": [0, 0, 0, 0]}, x, weight)


def normalize(case: Case, x: Array, p: Parameters, prefix: str = "") -> Array:
    """Batch norm with running statistics."""
    weight, bias, mean, variance = (
        torch.from_numpy(p(f"{prefix}bn.{name}", x.shape[3]))
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    return to_nhwc(
        F.batch_norm(to_nchw(x), mean, variance, weight, bias, eps=case["eps"])
    )


def activate(x: Array, activation: str) -> Array:
    functions = {"relu6": F.relu6, "relu": F.relu, "none": lambda x: x}
    return functions[activation](torch.from_numpy(x)).numpy()


def conv2d(case: Case, x: Array, p: Parameters) -> Array:
    k, in_channels, out_channels = (
        case["kernel"],
        case["in_channels"],
        case["out_channels"],
    )
    y = convolve(
        case, x, p("weight", k, k, in_channels // case["groups"], out_channels)
    )
    return y + p("bias", out_channels) if case["bias"] else y


def depthwise_conv2d(case: Case, x: Array, p: Parameters) -> Array:
    k, channels, multiplier = case["kernel"], case["channels"], case["multiplier"]
    y = convolve_depthwise(case, x, p("weight", k, k, channels, multiplier))
    return y + p("bias", channels * multiplier) if case["bias"] else y


def batch_norm(case: Case, x: Array, p: Parameters) -> Array:
    return normalize(case, x, p)


def linear(case: Case, x: Array, p: Parameters) -> Array:
    weight = p("weight", case["in_features"], case["out_features"])
    bias = torch.from_numpy(p("bias", case["out_features"])) if case["bias"] else None
    return F.linear(
        torch.from_numpy(x), torch.from_numpy(weight.T.copy()), bias
    ).numpy()


def relu6(case: Case, x: Array, p: Parameters) -> Array:
    return activate(x, "relu6")


def relu(case: Case, x: Array, p: Parameters) -> Array:
    return activate(x, "relu")


def softmax(case: Case, x: Array, p: Parameters) -> Array:
    return F.softmax(torch.from_numpy(x), dim=-1).numpy()


def global_avg_pool(case: Case, x: Array, p: Parameters) -> Array:
    return to_nhwc(F.adaptive_avg_pool2d(to_nchw(x), 1))


def global_max_pool(case: Case, x: Array, p: Parameters) -> Array:
    return to_nhwc(F.adaptive_max_pool2d(to_nchw(x), 1))


def avg_pool2d(case: Case, x: Array, p: Parameters) -> Array:
    """Averages windows; TensorFlow never counts its padding."""
    kernel, stride, include = case["kernel"], case["stride"], case["count_include_pad"]
    if case["padding"] == "same":
        return tf.nn.avg_pool2d(x, kernel, stride, "SAME").numpy()
    padding = case["padding"][0]
    assert case["padding"] == [padding] * 4, "PyTorch pools with symmetric padding only"
    return to_nhwc(
        F.avg_pool2d(to_nchw(x), kernel, stride, padding, count_include_pad=include)
    )


def conv_bn_relu(case: Case, x: Array, p: Parameters) -> Array:
    y = conv2d({**case, "bias": False}, x, p)
    return activate(normalize(case, y, p), case["activation"])


def depthwise_separable(case: Case, x: Array, p: Parameters) -> Array:
    k, in_channels, out_channels = (
        case["kernel"],
        case["in_channels"],
        case["out_channels"],
    )
    y = convolve_depthwise(case, x, p("depthwise.weight", k, k, in_channels, 1))
    y = activate(normalize(case, y, p, "depthwise."), "relu6")
    y = pointwise(y, p("pointwise.weight", 1, 1, in_channels, out_channels))
    return activate(normalize(case, y, p, "pointwise."), "relu6")


def inverted_residual(case: Case, x: Array, p: Parameters) -> Array:
    k, in_channels, out_channels = (
        case["kernel"],
        case["in_channels"],
        case["out_channels"],
    )
    hidden, y = in_channels * case["expand_ratio"], x
    if case["expand_ratio"] != 1:
        y = pointwise(y, p("expand.weight", 1, 1, in_channels, hidden))
        y = activate(normalize(case, y, p, "expand."), "relu6")
    y = convolve_depthwise(case, y, p("depthwise.weight", k, k, hidden, 1))
    y = activate(normalize(case, y, p, "depthwise."), "relu6")
    y = pointwise(y, p("project.weight", 1, 1, hidden, out_channels))
    y = normalize(case, y, p, "project.")
    return x + y if case["residual"] else y


OPERATIONS = (
    conv2d,
    depthwise_conv2d,
    batch_norm,
    linear,
    relu6,
    relu,
    softmax,
    global_avg_pool,
    global_max_pool,
    avg_pool2d,
    conv_bn_relu,
    depthwise_separable,
    inverted_residual,
)


def symmetric(padding: int) -> list[int]:
    return [padding] * 4


def padding_label(padding: str | list[int]) -> str:
    return padding if isinstance(padding, str) else "p" + "".join(map(str, padding))


def conv2d_cases() -> list[Case]:
    rows = [
        # input shape, out, k, s, d, groups, padding
        ([1, 7, 5, 3], 8, 1, 1, 1, 1, symmetric(0)),
        ([2, 7, 6, 8], 5, 1, 2, 1, 1, symmetric(0)),
        ([1, 7, 7, 17], 33, 1, 1, 1, 1, symmetric(0)),
        ([1, 1, 1, 64], 16, 1, 1, 1, 1, symmetric(0)),
        ([1, 4, 5, 8], 12, 1, 1, 1, 4, symmetric(0)),
        ([1, 9, 7, 3], 8, 3, 1, 1, 1, symmetric(1)),
        ([1, 9, 7, 3], 8, 3, 2, 1, 1, symmetric(1)),
        ([2, 8, 8, 3], 16, 3, 2, 1, 1, symmetric(1)),
        ([1, 11, 10, 4], 6, 3, 3, 1, 1, symmetric(1)),
        ([1, 9, 7, 5], 7, 3, 1, 1, 1, symmetric(0)),
        ([1, 1, 1, 3], 4, 3, 1, 1, 1, symmetric(1)),
        ([1, 9, 8, 3], 6, 3, 1, 2, 1, symmetric(2)),
        ([1, 9, 8, 3], 6, 3, 2, 2, 1, symmetric(2)),
        ([1, 7, 8, 8], 8, 3, 1, 1, 2, symmetric(1)),
        ([1, 7, 8, 8], 12, 3, 2, 1, 4, symmetric(1)),
        ([1, 9, 9, 4], 8, 3, 1, 2, 4, symmetric(2)),
        ([1, 9, 8, 3], 6, 5, 1, 1, 1, symmetric(2)),
        ([1, 9, 8, 3], 6, 5, 2, 1, 1, symmetric(2)),
        ([1, 11, 12, 3], 6, 5, 3, 1, 1, symmetric(2)),
        ([1, 11, 9, 2], 5, 5, 1, 2, 1, symmetric(4)),
        ([1, 13, 11, 4], 8, 5, 3, 2, 2, symmetric(4)),
        ([1, 8, 8, 3], 8, 3, 2, 1, 1, [0, 1, 0, 1]),
        ([1, 9, 7, 3], 8, 3, 2, 1, 1, [0, 1, 0, 1]),
        ([1, 6, 7, 4], 8, 3, 1, 1, 2, [2, 1, 0, 3]),
        ([1, 9, 8, 3], 4, 5, 2, 1, 1, [1, 2, 2, 1]),
        ([1, 6, 5, 3], 4, 3, 1, 2, 1, [3, 1, 2, 4]),
        ([1, 7, 6, 4], 8, 1, 2, 1, 1, "same"),
        ([1, 9, 8, 3], 8, 3, 1, 1, 1, "same"),
        ([2, 8, 8, 3], 8, 3, 2, 1, 1, "same"),
        ([1, 9, 7, 3], 8, 3, 2, 1, 1, "same"),
        ([1, 8, 9, 3], 8, 3, 2, 1, 1, "same"),
        ([1, 10, 11, 3], 8, 3, 3, 1, 1, "same"),
        ([1, 9, 12, 3], 8, 3, 3, 1, 1, "same"),
        ([1, 9, 8, 3], 6, 3, 1, 2, 1, "same"),
        ([1, 8, 7, 3], 6, 5, 1, 1, 1, "same"),
        ([1, 8, 7, 3], 6, 5, 2, 1, 1, "same"),
        ([1, 10, 12, 3], 6, 5, 3, 1, 1, "same"),
        ([1, 11, 10, 2], 4, 5, 1, 2, 1, "same"),
        ([1, 7, 8, 8], 8, 3, 2, 1, 2, "same"),
        ([1, 7, 8, 8], 12, 3, 1, 1, 4, "same"),
    ]
    cases = []
    for i, (shape, out, k, s, d, groups, padding) in enumerate(rows):
        size, label = "x".join(map(str, shape[1:])), padding_label(padding)
        cases.append(
            {
                "name": f"conv_k{k}s{s}d{d}g{groups}_{label}_{size}to{out}",
                "op": "conv2d",
                "input": shape,
                "in_channels": shape[3],
                "out_channels": out,
                "kernel": k,
                "stride": s,
                "dilation": d,
                "groups": groups,
                "padding": padding,
                "bias": i % 2 == 0,
            }
        )
    return cases


def depthwise_cases() -> list[Case]:
    """All of kernel, stride, dilation and channels; the other options rotate."""
    cases = []
    axes = itertools.product((3, 5, 7), (1, 2), (1, 2), (1, 3, 8, 17, 33))
    for i, (k, s, d, channels) in enumerate(axes):
        half = (k - 1) * d // 2
        # TensorFlow cannot both stride and dilate.
        third = "same" if s == 1 or d == 1 else [half + 1, half, half - 1, half]
        padding = (symmetric(half), third, third, [half - 1, half, half, half - 1])[
            i % 4
        ]
        height, width = ((7, 6), (5, 7), (4, 5), (6, 9))[i % 4 if channels < 17 else 2]
        multiplier = 1 + i % 3
        label = f"k{k}s{s}d{d}c{channels}m{multiplier}_{padding_label(padding)}"
        cases.append(
            {
                "name": f"depthwise_{label}_{height}x{width}",
                "op": "depthwise_conv2d",
                "input": [1 + (i % 7 == 0), height, width, channels],
                "channels": channels,
                "multiplier": multiplier,
                "kernel": k,
                "stride": s,
                "dilation": d,
                "padding": padding,
                "bias": i % 2 == 0,
            }
        )
    return cases


def elementwise_and_pool_cases() -> list[Case]:
    cases: list[Case] = [
        {
            "name": f"batch_norm_{label}",
            "op": "batch_norm",
            "input": [2, 4, 5, 17],
            "eps": eps,
        }
        for label, eps in (("eps1e-5", 1e-5), ("eps1e-3", 1e-3))
    ]
    for rows, inputs, outputs, bias in (
        (1, 8, 5, True),
        (3, 33, 17, True),
        (2, 64, 10, False),
    ):
        cases.append(
            {
                "name": f"linear_{rows}x{inputs}to{outputs}",
                "op": "linear",
                "input": [rows, 1, 1, inputs],
                "in_features": inputs,
                "out_features": outputs,
                "bias": bias,
            }
        )
    cases += [
        {"name": "relu6", "op": "relu6", "input": [2, 5, 3, 17], "input_scale": 16.0},
        {"name": "relu", "op": "relu", "input": [2, 5, 3, 17], "input_scale": 16.0},
        {
            "name": "softmax_10",
            "op": "softmax",
            "input": [3, 1, 1, 10],
            "input_scale": 8.0,
        },
        {
            "name": "softmax_1001",
            "op": "softmax",
            "input": [1, 1, 1, 1001],
            "input_scale": 16.0,
        },
        {
            "name": "softmax_large",
            "op": "softmax",
            "input": [2, 1, 1, 33],
            "input_scale": 2048.0,
        },
    ]
    for op in ("global_avg_pool", "global_max_pool"):
        for shape in ([1, 7, 7, 33], [2, 3, 5, 8], [2, 1, 1, 3]):
            name = f"{op}_{'x'.join(map(str, shape))}"
            cases.append({"name": name, "op": op, "input": shape})
    for kernel, stride, padding, include in (
        (2, 2, symmetric(0), True),
        (2, 2, symmetric(1), True),
        (2, 2, symmetric(1), False),
        (3, 1, symmetric(1), True),
        (3, 1, symmetric(1), False),
        (3, 2, symmetric(1), True),
        (3, 2, symmetric(1), False),
        (3, 2, "same", False),
        (2, 2, "same", False),
        (7, 1, symmetric(0), True),
    ):
        counted = "all" if include else "inside"
        label = f"k{kernel}s{stride}_{padding_label(padding)}_{counted}"
        cases.append(
            {
                "name": f"avg_pool_{label}",
                "op": "avg_pool2d",
                "input": [1, 8, 9, 5],
                "kernel": kernel,
                "stride": stride,
                "padding": padding,
                "count_include_pad": include,
            }
        )
    return cases


def block_cases() -> list[Case]:
    cases: list[Case] = []
    for activation, shape, out, k, s, groups, padding, eps in (
        ("relu6", [1, 9, 8, 3], 16, 3, 2, 1, symmetric(1), 1e-5),
        ("relu6", [1, 9, 8, 3], 16, 3, 2, 1, "same", 1e-3),
        ("relu6", [2, 8, 8, 3], 16, 3, 2, 1, "same", 1e-3),
        ("relu6", [1, 5, 4, 17], 33, 1, 1, 1, symmetric(0), 1e-5),
        ("relu", [1, 6, 7, 8], 12, 3, 1, 2, symmetric(1), 1e-3),
        ("relu", [1, 6, 7, 8], 8, 3, 2, 8, [0, 1, 0, 1], 1e-3),
        ("none", [1, 6, 7, 8], 24, 1, 1, 1, symmetric(0), 1e-5),
        ("none", [1, 9, 9, 4], 6, 5, 2, 1, "same", 1e-3),
    ):
        size = "x".join(map(str, shape[1:]))
        label = f"{activation}_k{k}s{s}g{groups}_{padding_label(padding)}_{size}to{out}"
        cases.append(
            {
                "name": f"conv_bn_{label}",
                "op": "conv_bn_relu",
                "input": shape,
                "in_channels": shape[3],
                "out_channels": out,
                "kernel": k,
                "stride": s,
                "dilation": 1,
                "groups": groups,
                "padding": padding,
                "activation": activation,
                "eps": eps,
            }
        )
    for shape, out, s, padding, eps in (
        ([1, 7, 6, 8], 16, 1, symmetric(1), 1e-5),
        ([2, 7, 6, 8], 16, 2, symmetric(1), 1e-5),
        ([1, 6, 6, 17], 33, 2, "same", 1e-3),
        ([1, 7, 7, 16], 32, 2, "same", 1e-3),
        ([1, 7, 7, 16], 32, 2, [0, 1, 0, 1], 1e-3),
        ([1, 4, 4, 32], 32, 1, "same", 1e-3),
    ):
        label = f"s{s}_{padding_label(padding)}_{'x'.join(map(str, shape[1:]))}to{out}"
        cases.append(
            {
                "name": f"separable_{label}",
                "op": "depthwise_separable",
                "input": shape,
                "in_channels": shape[3],
                "out_channels": out,
                "kernel": 3,
                "stride": s,
                "padding": padding,
                "eps": eps,
            }
        )
    for t, shape, out, k, s, padding, eps in (
        (1, [1, 8, 7, 32], 16, 3, 1, symmetric(1), 1e-5),
        (1, [1, 8, 7, 8], 8, 3, 1, symmetric(1), 1e-5),
        (1, [1, 8, 7, 8], 16, 3, 2, "same", 1e-3),
        (6, [1, 8, 7, 8], 8, 3, 1, symmetric(1), 1e-5),
        (6, [2, 5, 6, 16], 16, 3, 1, "same", 1e-3),
        (6, [1, 7, 7, 8], 8, 5, 1, symmetric(2), 1e-5),
        (6, [1, 7, 7, 8], 8, 7, 1, "same", 1e-3),
        (6, [1, 7, 6, 8], 16, 3, 1, symmetric(1), 1e-5),
        (6, [1, 9, 8, 8], 16, 3, 2, symmetric(1), 1e-5),
        (6, [1, 9, 8, 8], 16, 3, 2, "same", 1e-3),
        (6, [1, 8, 8, 16], 16, 3, 2, "same", 1e-3),
        (6, [1, 9, 8, 8], 12, 5, 2, symmetric(2), 1e-5),
        (6, [1, 9, 8, 8], 12, 5, 2, "same", 1e-3),
        (6, [1, 9, 10, 8], 12, 7, 2, symmetric(3), 1e-5),
        (3, [1, 6, 6, 17], 17, 3, 1, symmetric(1), 1e-5),
    ):
        size = "x".join(map(str, shape[1:]))
        label = f"t{t}k{k}s{s}_{padding_label(padding)}_{size}to{out}"
        cases.append(
            {
                "name": f"inverted_{label}",
                "op": "inverted_residual",
                "input": shape,
                "in_channels": shape[3],
                "out_channels": out,
                "expand_ratio": t,
                "kernel": k,
                "stride": s,
                "padding": padding,
                "residual": s == 1 and shape[3] == out,
                "eps": eps,
            }
        )
    for case in cases:
        # Wide enough that ReLU6 cuts at both ends.
        case["input_scale"] = 16.0
    return cases


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    operations = {operation.__name__: operation for operation in OPERATIONS}
    cases = (
        conv2d_cases()
        + depthwise_cases()
        + elementwise_and_pool_cases()
        + block_cases()
    )
    assert len({case["name"] for case in cases}) == len(cases)
    outputs = {}
    for case in cases:
        case.setdefault("input_scale", 1.0)
        parameters = Parameters(case["name"])
        x = tensor(f"{case['name']}.input", case["input"]) * case["input_scale"]
        y = operations[case["op"]](case, x, parameters)
        case["output"] = list(y.shape)
        case["parameters"] = parameters.shapes
        outputs[f"{case['name']}.output"] = np.ascontiguousarray(y)
    save_file(outputs, directory / "layers.safetensors")
    versions = {package: version(package) for package in ("torch", "tensorflow-cpu")}
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = f'{{"versions": {json.dumps(versions)},\n"cases": [\n{lines}\n]}}\n'
    (directory / "layers.json").write_text(text)
    print(f"{len(cases)} cases, {sum(y.size for y in outputs.values())} values")


if __name__ == "__main__":
    main()
