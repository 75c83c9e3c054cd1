"""Writes photos.json and logits_v2_f16.json: what real weights say about real photos.

MobileNetV2: torchvision's IMAGENET1K_V1 preset on the PIL image, then its network in
f32, once with the weights as they are and once with every floating tensor of the state
dict (batch norm too) rounded to f16 and back.

MobileNetV1: TF-slim's inception evaluation preprocessing by TensorFlow, then the
network of transformers (TensorFlow padding, epsilon 1e-3, 1001 classes of which 0 is
the background) with the TF-slim weights.

logits_v2_f16.json needs no photo: its input is the formula tensor `embedded.input`. The
network runs in f64, its logits are rounded to f32: `logits` with every floating tensor
rounded to f16, `logits_matrices` with only those of two or more dimensions.

Usage: python make_photos.py --images DIR --v2-weights FILE.pth
       --v1-weights FILE.safetensors [--output DIR]
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

# PyTorch comes before TensorFlow: the other order clashes inside LLVM.
import torch
import torchvision
import transformers

import numpy as np
import tensorflow as tf  # isort: skip
from PIL import Image
from safetensors.numpy import load_file

import names
from formula import tensor
from make_models import digest

Array = np.ndarray
State = dict[str, torch.Tensor]


def half(state: State, least_dimensions: int = 0) -> State:
    """Rounds floating tensors of so many dimensions or more to f16 and back."""
    return {
        name: (
            value.half().float()
            if value.is_floating_point() and value.dim() >= least_dimensions
            else value
        )
        for name, value in state.items()
    }


def v2_net(state: State) -> torch.nn.Module:
    net = torchvision.models.mobilenet_v2()
    net.load_state_dict(state)
    return net.eval()


def v1_net(path: Path) -> torch.nn.Module:
    """Builds transformers' network from TF-slim tensors, with or without scope."""
    config = transformers.MobileNetV1Config(num_labels=1001)
    net = transformers.MobileNetV1ForImageClassification(config)
    slim = {
        name.removeprefix("MobilenetV1/"): value
        for name, value in load_file(path).items()
    }
    ours = {
        ours: slim[theirs.removeprefix("MobilenetV1/")].astype(np.float32)
        for theirs, ours in names.slim_v1()
    }
    ours["classifier.weight"] = ours["classifier.weight"].reshape(-1, 1001)
    state = {
        theirs: torch.from_numpy(names.to_torch(name, ours[name]).copy())
        for theirs, name in names.hf_v1()
    }
    outcome = net.load_state_dict(state, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in outcome.missing_keys)
    return net.eval()


def v2_input(image: Image.Image) -> torch.Tensor:
    return torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()(image)[
        None
    ]


def v1_input(image: Image.Image) -> torch.Tensor:
    """Repeats `preprocess_for_eval` of TF-slim's inception_preprocessing.py."""
    x = tf.image.convert_image_dtype(np.asarray(image), tf.float32)
    x = tf.image.central_crop(x, central_fraction=0.875)
    x = tf.compat.v1.image.resize_bilinear(x[None], [224, 224], align_corners=False)
    x = (x - 0.5) * 2.0
    return torch.from_numpy(x.numpy().transpose(0, 3, 1, 2).copy())


def logits_of(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = net(x)
    return getattr(y, "logits", y)[0]


def shortest(value: float) -> float:
    """Returns the number with the fewest digits that reads back as the f32 `value`."""
    return float(str(np.float32(value)))


def top(net: torch.nn.Module, x: torch.Tensor) -> list[list[Any]]:
    """Returns [class, probability] of the ten best classes."""
    best = logits_of(net, x).softmax(0).topk(10)
    return [
        [i, shortest(p)] for i, p in zip(best.indices.tolist(), best.values.tolist())
    ]


def input_digest(x: torch.Tensor) -> list[float]:
    values = digest(x.permute(0, 2, 3, 1).double().numpy())
    return [round(float(value), 7) for value in values]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--v2-weights", type=Path, required=True)
    parser.add_argument("--v1-weights", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()

    state = torch.load(arguments.v2_weights, weights_only=True)
    v2, v2_f16, v1 = v2_net(state), v2_net(half(state)), v1_net(arguments.v1_weights)
    photos = []
    for path in sorted(arguments.images.iterdir()):
        image = Image.open(path).convert("RGB")
        x2, x1 = v2_input(image), v1_input(image)
        photo = {"file": path.name, "size": image.size}
        photo["v2"] = {"input": input_digest(x2), "top": top(v2, x2)}
        photo["v2_f16"] = {"top": top(v2_f16, x2)}
        photo["v1"] = {"input": input_digest(x1), "top": top(v1, x1)}
        photos.append(photo)
    packages = ("torch", "torchvision", "transformers", "tensorflow-cpu", "pillow")
    versions = {package: version(package) for package in packages}
    lines = ",\n".join(json.dumps(photo) for photo in photos)
    text = f'{{"versions": {json.dumps(versions)},\n"photos": [\n{lines}\n]}}\n'
    (arguments.output / "photos.json").write_text(text)

    shape = [1, 224, 224, 3]
    x = torch.from_numpy(tensor("embedded.input", shape)).permute(0, 3, 1, 2)
    embedded: dict[str, Any] = {
        "versions": {
            package: versions[package] for package in ("torch", "torchvision")
        },
        "input": "embedded.input",
        "shape": shape,
    }
    for key, rounded in (("logits", half(state)), ("logits_matrices", half(state, 2))):
        logits = logits_of(v2_net(rounded).double(), x).float()
        embedded[key] = [shortest(value) for value in logits.tolist()]
    (arguments.output / "logits_v2_f16.json").write_text(json.dumps(embedded) + "\n")


if __name__ == "__main__":
    main()
