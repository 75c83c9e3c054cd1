"""Writes train.safetensors and train.json: five training steps of whole networks, in f64.

Made with Python 3.11.7, torch 2.15.0, torchvision 0.29.2, numpy 2.4.6, safetensors
0.8.0 on the CPU, one thread. Usage:

    python make_train.py [OUTPUT_DIR]
    python make_train.py --stability    # writes nothing: how far rounding carries

Start values come from formula.py, but 2.5 is added to every `*.bn.bias`; the input is the
tensor `<case>.<input_number>.input`. Image `i` has the label `(7 i + 3) mod classes`, and
every step sees the same batch. MobileNetV2 is torchvision's; V1, which torchvision
lacks, is written here by the same conventions. No dropout.

Why a shift, and why an input number: single precision can only follow a run that does not
amplify rounding. Around zero, batch norm and ReLU6 multiply gradients by 1.2 per layer,
and thousands of activations lie so close to a corner of ReLU6 that rounding decides
whether they pass a gradient. 2.5 deviations above zero few do (one in 70 is clamped; with
frozen statistics, whose scale is not the activations', half are), and of 16 inputs the
one is taken whose activations stay farthest from 0 and 6 through all steps; `corner` is
that distance.

`train.json` lists the tensors of each architecture and the settings of each case;
`train.safetensors` holds for each case

    <case>.losses        [5]        mean loss of each step, before its update
    <case>.gradients.1   [N, 6]     after the first backward pass, before any update
    <case>.gradients.5   [N, 6]     after the last
    <case>.state.5       [N, 6]     parameters and running statistics after the last update

with one row per tensor, in the order of the list: a digest of sum, sum of magnitudes
and the elements at (n - 1) * i / 3 (integer division, i = 0..3) of the flattened tensor
in the crate's layout. Rows of tensors that have no gradient are left out of gradients,
rows of tensors that training may not change out of the state.

What trains (`training` of a case):

    all          everything; batch norm uses the batch, updates its running statistics
    head         the classifier alone; the features neither train nor update statistics
    frozen_norm  everything; batch norm uses its running statistics and leaves them;
                 not at 64 x 64, where even the best input leaves activations of up to
                 100 too near a corner for single precision
"""

import json
import platform
import sys
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.numpy import save_file
from torch import nn

import names
from formula import tensor

Array = np.ndarray
Case = dict[str, Any]
# Losses under "losses", else rows by our names.
Record = dict[str, Array | dict[str, list[float]]]

STEPS, BATCH, CLASSES = 5, 4, 10
SMOOTHED = "v2_a035_64_nesterov_all"
STATISTICS = (".running_mean", ".running_var")
SHIFT = 2.5
INPUTS = 16

# The arguments of torch.optim's classes and of TensorflowRmsProp. RMSprop and AdamW divide
# by about the size of a gradient plus eps. Where the true gradient is zero (the shift of a
# linear bottleneck: the next batch norm takes it away) that size is rounding noise, and
# an eps far above it keeps the noise from becoming a step.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.002, "momentum": 0.9, "weight_decay": 4e-5, "nesterov": False},
    "nesterov": {"lr": 0.002, "momentum": 0.9, "weight_decay": 4e-5, "nesterov": True},
    "rmsprop": {
        "lr": 1e-4,
        "alpha": 0.9,
        "eps": 1e-3,
        "momentum": 0.9,
        "weight_decay": 4e-5,
        "centered": False,
    },
    "rmsprop_tensorflow": {
        "lr": 2e-4,
        "alpha": 0.9,
        "eps": 1e-3,
        "momentum": 0.9,
        "weight_decay": 4e-5,
    },
    "adamw": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-3, "weight_decay": 0.01},
}
# Without batch norm's own scaling the loss explodes at the others' rate.
RATES = {"frozen_norm": {"lr": 2e-4}}


class TensorflowRmsProp(torch.optim.Optimizer):
    """TensorFlow's ApplyRMSProp: average from ones, eps in the root, rate in momentum.

    Checked against tf.raw_ops.ResourceApplyRMSProp of tensorflow-cpu 2.21.0. Weight decay
    is an L2 term of the loss, as in TF-slim: added to the gradient.
    """

    def __init__(self, trained: list[nn.Parameter], **settings: float) -> None:
        super().__init__(trained, settings)

    @torch.no_grad()
    def step(self) -> None:
        group = self.param_groups[0]
        for p in group["params"]:
            state = self.state[p]
            square = state.setdefault("square", torch.ones_like(p))
            velocity = state.setdefault("velocity", torch.zeros_like(p))
            gradient = p.grad + group["weight_decay"] * p
            square.add_((gradient * gradient - square) * (1 - group["alpha"]))
            step = group["lr"] * gradient / torch.sqrt(square + group["eps"])
            velocity.mul_(group["momentum"]).add_(step)
            p.sub_(velocity)


CLASSES_OF = {
    "sgd": torch.optim.SGD,
    "nesterov": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "rmsprop_tensorflow": TensorflowRmsProp,
    "adamw": torch.optim.AdamW,
}


class ConvBnRelu(nn.Conv2d):
    """Convolution, batch norm, ReLU6, under this crate's names."""

    def __init__(self, inputs: int, outputs: int, kernel: int, **options: int) -> None:
        padding = kernel // 2
        super().__init__(
            inputs, outputs, kernel, padding=padding, bias=False, **options
        )
        self.bn = nn.BatchNorm2d(outputs)
        self.relu6 = nn.ReLU6()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu6(self.bn(super().forward(x)))


class DepthwiseSeparable(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvBnRelu(inputs, inputs, 3, stride=stride, groups=inputs)
        self.pointwise = ConvBnRelu(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.depthwise(x))


class MobileNetV1(nn.Module):
    """Table 1 of arXiv:1704.04861, the last stride 1; alpha times 32 divides by 8."""

    def __init__(self, alpha: float, classes: int) -> None:
        super().__init__()
        widths = [64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
        strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
        channels = round(32 * alpha)
        blocks: list[nn.Module] = [ConvBnRelu(3, channels, 3, stride=2)]
        for width, stride in zip(widths, strides, strict=True):
            blocks.append(DepthwiseSeparable(channels, round(width * alpha), stride))
            channels = round(width * alpha)
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def build(architecture: str, alpha: float) -> nn.Module:
    if architecture == "v1":
        return MobileNetV1(alpha, CLASSES)
    return torchvision.models.mobilenet_v2(
        width_mult=alpha, num_classes=CLASSES, dropout=0.0
    )


def pairs(net: nn.Module, architecture: str) -> names.Pairs:
    """Lists (their name, our name) of all parameters and running statistics."""
    theirs = [n for n in net.state_dict() if not n.endswith("num_batches_tracked")]
    if architecture == "v1":
        return [(name, name) for name in theirs]
    listed = names.torchvision_v2()
    assert {name for name, _ in listed} == set(theirs)
    return listed


def to_ours(ours: str, value: torch.Tensor) -> Array:
    """Undoes names.to_torch: HWIO, depthwise [kh, kw, C, 1], linear [in, out]."""
    array = value.detach().numpy()
    if array.ndim != 4:
        return np.ascontiguousarray(array.T)
    order = (2, 3, 0, 1) if names.is_depthwise(ours) else (2, 3, 1, 0)
    return np.ascontiguousarray(array.transpose(order))


def digest(values: Array) -> list[float]:
    """Returns sum, sum of magnitudes and four elements."""
    flat = values.astype(np.float64).ravel()
    samples = [flat[(flat.size - 1) * i // 3] for i in range(4)]
    return [flat.sum(), np.abs(flat).sum(), *samples]


def set_up(case: Case, dtype: torch.dtype) -> tuple[nn.Module, names.Pairs]:
    net = build(case["architecture"], case["alpha"]).to(dtype).train()
    listed = pairs(net, case["architecture"])
    shapes = {name: list(value.shape) for name, value in net.state_dict().items()}
    state = {}
    for theirs, ours in listed:
        value = tensor(ours, names.our_shape_from_torch(ours, shapes[theirs]))
        value = value + SHIFT if ours.endswith(".bn.bias") else value
        state[theirs] = torch.from_numpy(names.to_torch(ours, value).copy())
    outcome = net.load_state_dict(state, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in outcome.missing_keys)
    if case["training"] == "head":
        net.features.requires_grad_(False)
    if case["training"] != "all":
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    return net, listed


def watch_corners(net: nn.Module) -> list[float]:
    """Returns a list that gets the distance to 0 or 6 of what enters each ReLU6."""
    distances: list[float] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        x = inputs[0].detach()
        distances.append(min(x.abs().min().item(), (x - 6).abs().min().item()))

    for module in net.modules():
        if isinstance(module, nn.ReLU6):
            module.register_forward_pre_hook(note)
    return distances


def run(case: Case, dtype: torch.dtype = torch.float64, nudge: float = 0.0) -> Record:
    """Trains; `nudge` is the relative size of a disturbance of the input."""
    net, listed = set_up(case, dtype)
    corners = watch_corners(net)
    x = tensor(f"{case['name']}.{case['input_number']}.input", case["input"])
    x = x * (1 + nudge * np.random.default_rng(0).uniform(-1, 1, x.shape))
    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).to(dtype)
    labels = torch.tensor([(7 * i + 3) % CLASSES for i in range(BATCH)])
    criterion = nn.CrossEntropyLoss(label_smoothing=case["label_smoothing"])
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = CLASSES_OF[case["optimizer"]](trained, **case["settings"])
    parameters = dict(net.named_parameters())

    def gradients() -> dict[str, list[float]]:
        return {
            ours: digest(to_ours(ours, parameters[theirs].grad))
            for theirs, ours in listed
            if theirs in parameters and parameters[theirs].requires_grad
        }

    losses, record = [], {}
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        loss = criterion(net(images), labels)
        loss.backward()
        losses.append(loss.item())
        if step in (1, STEPS):
            record[f"gradients.{step}"] = gradients()
        optimizer.step()
    state = net.state_dict()

    def may_change(theirs: str) -> bool:
        if theirs.endswith(STATISTICS):
            return case["training"] == "all"
        return parameters[theirs].requires_grad

    changed = {o: digest(to_ours(o, state[t])) for t, o in listed if may_change(t)}
    record |= {"losses": np.array(losses), f"state.{STEPS}": changed}
    return record | {"corner": np.array(min(corners))}


def run_best(case: Case) -> tuple[Case, Record]:
    """Chooses the input number; where features stay as they are, corners do no harm."""
    numbers = 1 if case["training"] == "head" else INPUTS
    cases = [case | {"input_number": number} for number in range(numbers)]
    runs = [(case, run(case)) for case in cases]
    best, record = max(runs, key=lambda pair: pair[1]["corner"])
    return best | {"corner": float(f"{record['corner']:.1e}")}, record


def make_cases() -> list[Case]:
    """Lists every network, size and optimizer, frozen and not, then what is apart."""
    networks = [("v2", 0.35), ("v1", 0.25)]
    optimizers = ["sgd", "nesterov", "rmsprop", "adamw"]
    rows = [
        # network, side, optimizer, training
        *product(networks, (33, 64), optimizers, ("all", "head")),
        *product(networks, [33], ["sgd"], ["frozen_norm"]),
        (networks[0], 33, "rmsprop_tensorflow", "all"),
    ]
    cases = []
    for (architecture, alpha), side, optimizer, training in rows:
        width = f"a{round(alpha * 100):03}"
        name = f"{architecture}_{width}_{side}_{optimizer}_{training}"
        cases.append(
            {
                "name": name,
                "architecture": architecture,
                "alpha": alpha,
                "classes": CLASSES,
                "input": [BATCH, side, side, 3],
                "optimizer": optimizer,
                "settings": OPTIMIZERS[optimizer] | RATES.get(training, {}),
                "training": training,
                "label_smoothing": 0.1 if name == SMOOTHED else 0.0,
            }
        )
    return cases


def largest_error(
    found: Record, golden: Record, sizes: dict[str, int], kind: str
) -> float:
    """Returns the least tolerance that passes; its meaning is in tests/suite/train_golden.rs."""
    if kind == "losses":
        return float(np.max(np.abs(found[kind] - golden[kind]) / golden[kind]))
    errors = []
    for name, expected in golden[kind].items():
        scale = expected[1]
        if kind.startswith("gradients") and name.endswith(".bn.bias"):
            scale = max(scale, golden[kind][name.removesuffix("bias") + "weight"][1])
        scales = [
            scale,
            scale,
            *(max(abs(x), scale / sizes[name]) for x in expected[2:]),
        ]
        both = zip(found[kind][name], expected, scales, strict=True)
        errors += [abs(f - e) / s for f, e, s in both]
    return max(errors)


def stability(case: Case, golden: Record) -> None:
    """Prints how far single precision and an input off by 1e-15 are from the f64 run."""
    net, listed = set_up(case, torch.float64)
    sizes = {ours: net.state_dict()[theirs].numel() for theirs, ours in listed}
    print(case["name"], case["input_number"], case["corner"], golden["losses"].round(3))
    runs = {"f32": run(case, torch.float32), "nudged": run(case, nudge=1e-15)}
    for label, other in runs.items():
        kinds = [kind for kind in golden if kind != "corner"]
        errors = [f"{k} {largest_error(other, golden, sizes, k):.0e}" for k in kinds]
        print(f"  {label}: {', '.join(errors)}")


def main() -> None:
    torch.set_num_threads(1)
    cases, tensors = [], {}
    for case in make_cases():
        case, record = run_best(case)
        if "--stability" in sys.argv:
            stability(case, record)
            continue
        del record["corner"]
        cases.append(case)
        for kind, rows in record.items():
            rows = rows if kind == "losses" else np.array(list(rows.values()))
            tensors[f"{case['name']}.{kind}"] = rows
    if not cases:
        return
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    assert all(value.dtype == np.float64 for value in tensors.values())
    save_file(tensors, directory / "train.safetensors")
    packages = ("torch", "torchvision", "numpy", "safetensors")
    versions = {"python": platform.python_version()}
    versions |= {package: version(package) for package in packages}
    lists = {}
    for architecture in ("v1", "v2"):
        listed = pairs(build(architecture, 0.25), architecture)
        lists[architecture] = [ours for _, ours in listed]
    rows = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (directory / "train.json").write_text(
        f'{{"versions":{json.dumps(versions)},\n"steps":{STEPS},\n'
        f'"tensors":{json.dumps(lists, separators=(",", ":"))},\n"cases":[\n{rows}\n]}}\n'
    )
    ends = ("json", "safetensors")
    size = sum((directory / f"train.{end}").stat().st_size for end in ends)
    print(f"{len(cases)} runs, {size} bytes")


if __name__ == "__main__":
    main()
