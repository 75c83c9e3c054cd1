"""The crate's parameter names beside those of each framework, and the layout changes.

Every function without arguments lists pairs (their name, our name) in network order;
PyTorch's `num_batches_tracked` counters have no counterpart.

Usage: imported by make_models.py, which writes the lists with shapes to names.json.
"""

import numpy as np

Pairs = list[tuple[str, str]]

NORM = ("weight", "bias", "running_mean", "running_var")
TF_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
TIMM_V1_REPEATS = (1, 2, 2, 6, 2)
TIMM_V2_REPEATS = (1, 2, 3, 4, 3, 3, 1)


def unit(ours: str, weight: str, norm: str, leaves: tuple[str, ...]) -> Pairs:
    """Pairs a convolution and its batch norm."""
    norms = [(norm + leaf, f"{ours}.bn.{name}") for leaf, name in zip(leaves, NORM)]
    return [(weight, f"{ours}.weight"), *norms]


def head(weight: str, bias: str) -> Pairs:
    return [(weight, "classifier.weight"), (bias, "classifier.bias")]


def torch_unit(ours: str, conv: str, norm: str) -> Pairs:
    return unit(ours, f"{conv}.weight", f"{norm}.", NORM)


def keras_unit(ours: str, conv: str, norm: str) -> Pairs:
    return unit(ours, f"{conv}/kernel", f"{norm}/", TF_NORM)


def torchvision_v2() -> Pairs:
    pairs = torch_unit("features.0", "features.0.0", "features.0.1")
    for i in range(1, 18):
        ours, theirs = f"features.{i}", f"features.{i}.conv"
        at = 0
        if i > 1:
            pairs += torch_unit(f"{ours}.expand", f"{theirs}.0.0", f"{theirs}.0.1")
            at = 1
        pairs += torch_unit(f"{ours}.depthwise", f"{theirs}.{at}.0", f"{theirs}.{at}.1")
        pairs += torch_unit(
            f"{ours}.project", f"{theirs}.{at + 1}", f"{theirs}.{at + 2}"
        )
    pairs += torch_unit("features.18", "features.18.0", "features.18.1")
    return pairs + head("classifier.1.weight", "classifier.1.bias")


def timm_blocks(repeats: tuple[int, ...]) -> list[str]:
    return [f"blocks.{i}.{j}" for i, count in enumerate(repeats) for j in range(count)]


def timm_v1() -> Pairs:
    pairs = torch_unit("features.0", "conv_stem", "bn1")
    for i, block in enumerate(timm_blocks(TIMM_V1_REPEATS), 1):
        pairs += torch_unit(
            f"features.{i}.depthwise", f"{block}.conv_dw", f"{block}.bn1"
        )
        pairs += torch_unit(
            f"features.{i}.pointwise", f"{block}.conv_pw", f"{block}.bn2"
        )
    return pairs + head("classifier.weight", "classifier.bias")


def timm_v2() -> Pairs:
    first, *rest = timm_blocks(TIMM_V2_REPEATS)
    pairs = torch_unit("features.0", "conv_stem", "bn1")
    pairs += torch_unit("features.1.depthwise", f"{first}.conv_dw", f"{first}.bn1")
    pairs += torch_unit("features.1.project", f"{first}.conv_pw", f"{first}.bn2")
    for i, block in enumerate(rest, 2):
        pairs += torch_unit(f"features.{i}.expand", f"{block}.conv_pw", f"{block}.bn1")
        pairs += torch_unit(
            f"features.{i}.depthwise", f"{block}.conv_dw", f"{block}.bn2"
        )
        pairs += torch_unit(
            f"features.{i}.project", f"{block}.conv_pwl", f"{block}.bn3"
        )
    pairs += torch_unit("features.18", "conv_head", "bn2")
    return pairs + head("classifier.weight", "classifier.bias")


def hf_unit(ours: str, theirs: str) -> Pairs:
    return torch_unit(ours, f"{theirs}.convolution", f"{theirs}.normalization")


def hf_v1() -> Pairs:
    pairs = hf_unit("features.0", "mobilenet_v1.conv_stem")
    for i in range(13):
        pairs += hf_unit(f"features.{i + 1}.depthwise", f"mobilenet_v1.layer.{2 * i}")
        pairs += hf_unit(
            f"features.{i + 1}.pointwise", f"mobilenet_v1.layer.{2 * i + 1}"
        )
    return pairs + head("classifier.weight", "classifier.bias")


def hf_v2() -> Pairs:
    stem = "mobilenet_v2.conv_stem"
    pairs = hf_unit("features.0", f"{stem}.first_conv")
    pairs += hf_unit("features.1.depthwise", f"{stem}.conv_3x3")
    pairs += hf_unit("features.1.project", f"{stem}.reduce_1x1")
    for i in range(16):
        ours, theirs = f"features.{i + 2}", f"mobilenet_v2.layer.{i}"
        pairs += hf_unit(f"{ours}.expand", f"{theirs}.expand_1x1")
        pairs += hf_unit(f"{ours}.depthwise", f"{theirs}.conv_3x3")
        pairs += hf_unit(f"{ours}.project", f"{theirs}.reduce_1x1")
    pairs += hf_unit("features.18", "mobilenet_v2.conv_1x1")
    return pairs + head("classifier.weight", "classifier.bias")


def slim_unit(ours: str, theirs: str, weight: str) -> Pairs:
    return unit(ours, f"{theirs}/{weight}", f"{theirs}/BatchNorm/", TF_NORM)


def slim_v1() -> Pairs:
    pairs = slim_unit("features.0", "MobilenetV1/Conv2d_0", "weights")
    for i in range(1, 14):
        ours, theirs = f"features.{i}", f"MobilenetV1/Conv2d_{i}"
        pairs += slim_unit(
            f"{ours}.depthwise", f"{theirs}_depthwise", "depthwise_weights"
        )
        pairs += slim_unit(f"{ours}.pointwise", f"{theirs}_pointwise", "weights")
    logits = "MobilenetV1/Logits/Conv2d_1c_1x1"
    return pairs + head(f"{logits}/weights", f"{logits}/biases")


def keras_v1() -> Pairs:
    pairs = keras_unit("features.0", "conv1", "conv1_bn")
    for i in range(1, 14):
        pairs += keras_unit(
            f"features.{i}.depthwise", f"conv_dw_{i}", f"conv_dw_{i}_bn"
        )
        pairs += keras_unit(
            f"features.{i}.pointwise", f"conv_pw_{i}", f"conv_pw_{i}_bn"
        )
    return pairs + head("conv_preds/kernel", "conv_preds/bias")


def keras_v2() -> Pairs:
    pairs = keras_unit("features.0", "Conv1", "bn_Conv1")
    for i in range(17):
        ours, theirs = f"features.{i + 1}", f"block_{i}" if i else "expanded_conv"
        for part in ("expand", "depthwise", "project")[i == 0 :]:
            pairs += keras_unit(
                f"{ours}.{part}", f"{theirs}_{part}", f"{theirs}_{part}_BN"
            )
    pairs += keras_unit("features.18", "Conv_1", "Conv_1_bn")
    return pairs + head("predictions/kernel", "predictions/bias")


def is_depthwise(ours: str) -> bool:
    return ours.endswith(".depthwise.weight")


def to_torch(ours: str, value: np.ndarray) -> np.ndarray:
    """Converts to OIHW, depthwise [C * M, 1, kh, kw], linear [out, in]."""
    if is_depthwise(ours):
        height, width, channels, multiplier = value.shape
        return value.transpose(2, 3, 0, 1).reshape(
            channels * multiplier, 1, height, width
        )
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def our_shape_from_torch(ours: str, shape: list[int]) -> list[int]:
    """Returns our shape of a PyTorch parameter; depthwise multipliers are 1."""
    if len(shape) == 4:
        out, per_group, height, width = shape
        return (
            [height, width, out, 1]
            if is_depthwise(ours)
            else [height, width, per_group, out]
        )
    return shape[::-1]


def our_shape_from_tf(ours: str, shape: list[int]) -> list[int]:
    """Returns our shape of a TensorFlow parameter; a 1x1 classifier becomes linear."""
    return shape[2:] if ours == "classifier.weight" and len(shape) == 4 else shape
