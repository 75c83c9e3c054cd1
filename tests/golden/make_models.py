"""Writes models.safetensors, models.json and names.json: whole networks, in f64.

Each framework builds its own network, takes the weights of formula.py through the maps
of names.py and computes logits (before softmax) and a digest of every block for the
input `<case>.input`.

Usage: python make_models.py [OUTPUT_DIR]
"""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

# The PyTorch family comes before Keras: the other order clashes inside LLVM.
import timm
import torch
import torchvision
import transformers

import keras  # isort: skip
import numpy as np
from safetensors.numpy import save_file

import names
from formula import tensor

Array = np.ndarray
Case = dict[str, Any]


def sample_positions(size: int) -> list[int]:
    """Returns four positions spread over a flattened tensor."""
    return [(size - 1) * i // 3 for i in range(4)]


def digest(block: Array) -> list[float]:
    """Returns mean, mean of magnitudes and four elements (NHWC order)."""
    samples = block.ravel()[sample_positions(block.size)]
    return [block.mean(), np.abs(block).mean(), *samples]


def torch_blocks(net: torch.nn.Module, source: str) -> list[torch.nn.Module]:
    """Returns the modules whose outputs are those of our features.0, features.1, ..."""
    if source == "torchvision_v2":
        return list(net.features)
    if source == "timm_v1":
        return [net.bn1, *(block for stage in net.blocks for block in stage)]
    if source == "timm_v2":
        return [net.bn1, *(block for stage in net.blocks for block in stage), net.bn2]
    if source == "hf_v1":
        return [net.mobilenet_v1.conv_stem, *net.mobilenet_v1.layer[1::2]]
    base = net.mobilenet_v2
    return [base.conv_stem.first_conv, base.conv_stem, *base.layer, base.conv_1x1]


def torch_net(source: str, alpha: float, classes: int) -> torch.nn.Module:
    if source == "torchvision_v2":
        return torchvision.models.mobilenet_v2(width_mult=alpha, num_classes=classes)
    if source in ("timm_v1", "timm_v2"):
        name = f"mobilenet{source[5:]}_{round(alpha * 100):03}"
        return timm.create_model(name, pretrained=False, num_classes=classes)
    if source == "hf_v1":
        config = transformers.MobileNetV1Config(
            depth_multiplier=alpha, num_labels=classes
        )
        return transformers.MobileNetV1ForImageClassification(config)
    config = transformers.MobileNetV2Config(depth_multiplier=alpha, num_labels=classes)
    return transformers.MobileNetV2ForImageClassification(config)


def torch_parameters(net: torch.nn.Module) -> dict[str, list[int]]:
    """Returns the shapes of all parameters and running statistics."""
    state = net.state_dict().items()
    return {
        name: list(v.shape)
        for name, v in state
        if not name.endswith("num_batches_tracked")
    }


def check_complete(pairs: names.Pairs, theirs: set[str]) -> None:
    assert len(pairs) == len(theirs) == len({ours for _, ours in pairs})
    assert {name for name, _ in pairs} == theirs


def run_torch(case: Case, x: Array) -> tuple[Array, list[Array]]:
    source = case["source"]
    pairs = getattr(names, source)()
    net = torch_net(source, case["alpha"], case["classes"]).double().eval()
    shapes = torch_parameters(net)
    check_complete(pairs, set(shapes))
    state = {}
    for theirs, ours in pairs:
        value = tensor(ours, names.our_shape_from_torch(ours, shapes[theirs]))
        state[theirs] = torch.from_numpy(names.to_torch(ours, value).copy())
    outcome = net.load_state_dict(state, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in outcome.missing_keys)

    outputs: list[Array] = []
    for block in torch_blocks(net, source):
        block.register_forward_hook(
            lambda module, inputs, output: outputs.append(
                output.permute(0, 2, 3, 1).numpy().copy()
            )
        )
    with torch.no_grad():
        logits = net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    return getattr(logits, "logits", logits).numpy(), outputs


def keras_net(source: str, alpha: float, classes: int, shape: list[int]) -> keras.Model:
    applications = keras.applications
    build = applications.MobileNet if source == "keras_v1" else applications.MobileNetV2
    return build(
        input_shape=tuple(shape),
        alpha=alpha,
        weights=None,
        classes=classes,
        classifier_activation=None,
    )


def keras_blocks(net: keras.Model, source: str) -> list[keras.KerasTensor]:
    if source == "keras_v1":
        layers = ["conv1_relu", *(f"conv_pw_{i}_relu" for i in range(1, 14))]
    else:
        existing = {layer.name for layer in net.layers}
        layers = ["Conv1_relu", "expanded_conv_project_BN"]
        for i in range(1, 17):
            added = f"block_{i}_add"
            layers.append(added if added in existing else f"block_{i}_project_BN")
        layers.append("out_relu")
    return [net.get_layer(name).output for name in layers]


def run_keras(case: Case, x: Array) -> tuple[Array, list[Array]]:
    source = case["source"]
    pairs = getattr(names, source)()
    net = keras_net(source, case["alpha"], case["classes"], case["input"][1:])
    variables = {variable.path: variable for variable in net.weights}
    check_complete(pairs, set(variables))
    for theirs, ours in pairs:
        shape = list(variables[theirs].shape)
        value = tensor(ours, names.our_shape_from_tf(ours, shape))
        variables[theirs].assign(value.reshape(shape))
    probe = keras.Model(net.input, [net.output, *keras_blocks(net, source)])
    logits, *outputs = (keras.ops.convert_to_numpy(y) for y in probe(x, training=False))
    return logits, outputs


SOURCES: dict[
    str, tuple[Callable[[Case, Array], tuple[Array, list[Array]]], float, str]
] = {
    # runner, epsilon, padding; "keras_v1" is same padding for the stem and the stride-1
    # depthwise layers, but [0, 1, 0, 1] (top, bottom, left, right) at stride 2.
    "torchvision_v2": (run_torch, 1e-5, "symmetric"),
    "timm_v1": (run_torch, 1e-5, "symmetric"),
    "timm_v2": (run_torch, 1e-5, "symmetric"),
    "hf_v1": (run_torch, 1e-3, "same"),
    "hf_v2": (run_torch, 1e-3, "same"),
    "keras_v1": (run_keras, 1e-3, "keras_v1"),
    "keras_v2": (run_keras, 1e-3, "same"),
}


def make_cases() -> list[Case]:
    rows = [
        (
            "torchvision_v2",
            0.25,
            (32, 32),
        ),  # the only width whose first block has a residual
        ("torchvision_v2", 0.35, (32, 32)),
        ("torchvision_v2", 0.35, (33, 33)),
        ("torchvision_v2", 0.5, (33, 33)),
        ("torchvision_v2", 0.5, (64, 47)),
        ("torchvision_v2", 1.0, (32, 32)),
        ("torchvision_v2", 1.0, (64, 47)),
        ("timm_v1", 1.0, (33, 33)),
        ("timm_v1", 1.0, (48, 48)),
        ("timm_v2", 0.5, (33, 33)),
        ("timm_v2", 0.5, (48, 48)),
        ("hf_v1", 0.5, (32, 32)),
        ("hf_v1", 0.75, (45, 45)),
        ("hf_v2", 0.75, (32, 32)),
        ("hf_v2", 0.5, (45, 45)),
        ("keras_v1", 0.25, (32, 32)),
        ("keras_v1", 0.25, (33, 33)),
        ("keras_v1", 0.5, (32, 32)),
        ("keras_v1", 0.5, (47, 35)),
        ("keras_v2", 0.35, (32, 32)),
        ("keras_v2", 0.35, (33, 33)),
        ("keras_v2", 1.0, (32, 32)),
        ("keras_v2", 1.0, (47, 35)),
    ]
    return [
        {
            "name": f"{source}_a{round(alpha * 100):03}_{height}x{width}",
            "source": source,
            "alpha": alpha,
            "classes": 10,
            "input": [1, height, width, 3],
            "eps": SOURCES[source][1],
            "padding": SOURCES[source][2],
        }
        for source, alpha, (height, width) in rows
    ]


def name_table(source: str) -> list[tuple[str, list[int], str, list[int]]]:
    """Lists (their name, their shape, our name, our shape) at alpha 1."""
    pairs = getattr(names, source)()
    if source == "slim_v1":
        # TF-slim no longer installs: the shapes are those of Keras V1.
        net = keras_net("keras_v1", 1.0, 1001, [224, 224, 3])
        by_keras = {variable.path: list(variable.shape) for variable in net.weights}
        keras_names = {ours: theirs for theirs, ours in names.keras_v1()}
        shapes = {theirs: by_keras[keras_names[ours]] for theirs, ours in pairs}
    elif source.startswith("keras"):
        net = keras_net(source, 1.0, 1000, [224, 224, 3])
        shapes = {variable.path: list(variable.shape) for variable in net.weights}
    else:
        shapes = torch_parameters(
            torch_net(source, 1.0, 1001 if source.startswith("hf") else 1000)
        )
    check_complete(pairs, set(shapes))
    tf_layout = source.startswith(("slim", "keras"))
    convert = names.our_shape_from_tf if tf_layout else names.our_shape_from_torch
    return [
        (theirs, shapes[theirs], ours, convert(ours, shapes[theirs]))
        for theirs, ours in pairs
    ]


def write_lines(path: Path, head: str, rows: list[Any], tail: str) -> None:
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    path.write_text(f"{head}{lines}\n{tail}")


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    keras.config.set_floatx("float64")
    cases, tensors = make_cases(), {}
    for case in cases:
        run, *_ = SOURCES[case["source"]]
        logits, blocks = run(case, tensor(f"{case['name']}.input", case["input"]))
        tensors[f"{case['name']}.logits"] = np.ascontiguousarray(logits)
        tensors[f"{case['name']}.digest"] = np.array(
            [digest(block) for block in blocks]
        )
        case["blocks"] = [list(block.shape) for block in blocks]
    assert all(value.dtype == np.float64 for value in tensors.values())
    save_file(tensors, directory / "models.safetensors")
    packages = (
        "torch",
        "torchvision",
        "timm",
        "transformers",
        "tensorflow-cpu",
        "keras",
    )
    versions = json.dumps({package: version(package) for package in packages})
    head = f'{{"versions":{versions},\n"cases":[\n'
    write_lines(directory / "models.json", head, cases, "]}\n")

    tables = []
    for source in (*SOURCES, "slim_v1"):
        rows = ",\n".join(
            json.dumps(row, separators=(",", ":")) for row in name_table(source)
        )
        tables.append(f'"{source}":[\n{rows}\n]')
    (directory / "names.json").write_text("{" + ",\n".join(tables) + "}\n")
    print(f"{len(cases)} networks")


if __name__ == "__main__":
    main()
