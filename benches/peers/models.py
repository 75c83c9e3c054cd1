"""Writes MobileNetV1 1.0, V2 1.0 and V2 0.35 for every peer: models.py FOLDER

One list of layers goes into three formats, so that every peer gets the same net with the same weights, in the form its
own converter would give: batch norm folded away, ReLU6 fused into the convolution where the format can say so. Weights
are random, of a scale that keeps activations alive. Zeros are added on all sides of a 3x3 window, as in PyTorch.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as tfl
from onnx import TensorProto, helper, numpy_helper

MODELS = ["v1_100", "v2_100", "v2_035"]
SIZE = 224
CLASSES = 1000


@dataclass
class Layer:
    """`inputs` are numbers of tensors: 0 is the image, i + 1 the output of layer i, which is [size, size, channels]."""

    kind: str  # conv, depthwise, add, pool or dense
    inputs: list[int]
    size: int
    channels: int
    stride: int = 1
    relu6: bool = False
    weight: np.ndarray | None = None  # [out, in / groups, kernel, kernel], of a dense layer [out, in]
    bias: np.ndarray | None = None

    @property
    def kernel(self) -> int:
        return self.weight.shape[-1]


class Net:
    """Appends layers, each to the last one."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.random = np.random.default_rng(0)
        self.size, self.channels = SIZE, 3

    def push(self, kind: str, shape: tuple[int, ...] = (), stride: int = 1, relu6: bool = False) -> None:
        layer = Layer(kind, [len(self.layers)], self.size, self.channels, stride, relu6)
        if shape:
            # He's initialiser before a ReLU6, and the one that keeps the variance before none.
            scale = np.sqrt((2 if relu6 else 1) / np.prod(shape[1:]))
            layer.weight = self.random.normal(0, scale, shape).astype("<f4")
            layer.bias = self.random.normal(0, 0.1, shape[0]).astype("<f4")
        self.layers.append(layer)

    def conv(self, channels: int, kernel: int = 1, stride: int = 1, relu6: bool = True) -> None:
        shape = (channels, self.channels, kernel, kernel)
        self.size, self.channels = self.size // stride, channels
        self.push("conv", shape, stride, relu6)

    def depthwise(self, stride: int) -> None:
        self.size //= stride
        self.push("depthwise", (self.channels, 1, 3, 3), stride, relu6=True)

    def bottleneck(self, channels: int, expand: int, stride: int) -> None:
        start, is_residual = len(self.layers), stride == 1 and channels == self.channels
        if expand > 1:
            self.conv(self.channels * expand)
        self.depthwise(stride)
        self.conv(channels, relu6=False)
        if is_residual:
            self.push("add")
            self.layers[-1].inputs.insert(0, start)

    def head(self) -> list[Layer]:
        self.size = 1
        self.push("pool")
        shape = (CLASSES, self.channels)
        self.channels = CLASSES
        self.push("dense", shape)
        return self.layers


def divisible(channels: float) -> int:
    """The nearest multiple of 8, unless that loses more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def mobilenet_v1() -> list[Layer]:
    """Table 1 of arXiv 1704.04861; its last stride is 1, as in TF-slim."""
    net = Net()
    net.conv(32, kernel=3, stride=2)
    widths = [64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    for index, channels in enumerate(widths):
        net.depthwise(stride=2 if index in (1, 3, 5, 11) else 1)
        net.conv(channels)
    return net.head()


def mobilenet_v2(alpha: float) -> list[Layer]:
    """Table 2 of arXiv 1801.04381: expansion, channels, repeats, stride of the first."""
    net = Net()
    net.conv(divisible(32 * alpha), kernel=3, stride=2)
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, channels, repeats, stride in stages:
        for index in range(repeats):
            net.bottleneck(divisible(channels * alpha), expand, stride if index == 0 else 1)
    net.conv(divisible(1280 * max(1, alpha)))
    return net.head()


def build(name: str) -> list[Layer]:
    family, percent = name.split("_")
    return mobilenet_v1() if family == "v1" else mobilenet_v2(int(percent) / 100)


def write_onnx(layers: list[Layer], path: Path) -> None:
    """NCHW, for OpenVINO and ONNX Runtime: both fuse Conv with Clip when they load it."""
    constants = {"zero": np.float32(0), "six": np.float32(6)}
    nodes = []
    for number, layer in enumerate(layers, 1):
        inputs = [f"t{number}" for number in layer.inputs]
        output = f"t{number}"
        if layer.weight is not None:
            inputs += [f"w{number}", f"b{number}"]
            constants |= {f"w{number}": layer.weight, f"b{number}": layer.bias}
        match layer.kind:
            case "conv" | "depthwise":
                convolved = f"c{number}" if layer.relu6 else output
                nodes.append(
                    helper.make_node(
                        "Conv",
                        inputs,
                        [convolved],
                        kernel_shape=[layer.kernel] * 2,
                        strides=[layer.stride] * 2,
                        pads=[layer.kernel // 2] * 4,
                        group=layer.channels if layer.kind == "depthwise" else 1,
                    )
                )
                if layer.relu6:
                    nodes.append(helper.make_node("Clip", [convolved, "zero", "six"], [output]))
            case "add":
                nodes.append(helper.make_node("Add", inputs, [output]))
            case "pool":
                nodes.append(helper.make_node("GlobalAveragePool", inputs, [f"p{number}"]))
                nodes.append(helper.make_node("Flatten", [f"p{number}"], [output]))
            case "dense":
                nodes.append(helper.make_node("Gemm", inputs, [output], transB=1))
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("t0", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(f"t{len(layers)}", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


class TfliteGraph:
    """A `.tflite` graph that grows; tensors and operators are named by their number."""

    def __init__(self) -> None:
        # Buffer 0 is the empty one of tensors without data.
        self.buffers = [tfl.BufferT()]
        self.codes: list[int] = []
        self.graph = tfl.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[])

    def tensor(self, shape: list[int], data: np.ndarray | None = None) -> int:
        is_index = data is not None and data.dtype.kind == "i"
        kind = tfl.TensorType.INT32 if is_index else tfl.TensorType.FLOAT32
        buffer = 0
        if data is not None:
            buffer = len(self.buffers)
            self.buffers.append(tfl.BufferT(data=np.frombuffer(data.tobytes(), np.uint8)))
        number = len(self.graph.tensors)
        self.graph.tensors.append(tfl.TensorT(shape=shape, type=kind, buffer=buffer, name=f"t{number}"))
        return number

    def constant(self, data: np.ndarray) -> int:
        return self.tensor(list(data.shape), data)

    def operator(self, name: str, inputs: list[int], shape: list[int], options: object) -> int:
        code = getattr(tfl.BuiltinOperator, name)
        if code not in self.codes:
            self.codes.append(code)
        output = self.tensor(shape)
        kind = getattr(tfl.BuiltinOptions, type(options).__name__.removesuffix("T"))
        index = self.codes.index(code)
        operator = tfl.OperatorT(
            opcodeIndex=index, inputs=inputs, outputs=[output], builtinOptionsType=kind, builtinOptions=options
        )
        self.graph.operators.append(operator)
        return output

    def write(self, path: Path) -> None:
        codes = [tfl.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, version=1) for code in self.codes]
        model = tfl.ModelT(version=3, operatorCodes=codes, subgraphs=[self.graph], buffers=self.buffers)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(builder.Output())


def write_tflite(layers: list[Layer], path: Path) -> None:
    """NHWC, for XNNPACK."""
    net = TfliteGraph()
    tensors = [net.tensor([1, SIZE, SIZE, 3])]
    net.graph.inputs = [tensors[0]]
    for layer in layers:
        inputs = [tensors[number] for number in layer.inputs]
        shape = [1, layer.size, layer.size, layer.channels]
        activation = tfl.ActivationFunctionType.RELU6 if layer.relu6 else tfl.ActivationFunctionType.NONE
        steps = {"strideW": layer.stride, "strideH": layer.stride, "fusedActivationFunction": activation}
        # SAME adds its zeros on all sides only at stride 1. XNNPACK folds this PAD into the convolution.
        if layer.stride == 2:
            padded = [1, layer.size * 2 + 2, layer.size * 2 + 2, net.graph.tensors[inputs[0]].shape[3]]
            margins = net.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], "<i4"))
            inputs = [net.operator("PAD", [inputs[0], margins], padded, tfl.PadOptionsT())]
            steps["padding"] = tfl.Padding.VALID
        match layer.kind:
            case "conv":
                inputs += [net.constant(layer.weight.transpose(0, 2, 3, 1)), net.constant(layer.bias)]
                output = net.operator("CONV_2D", inputs, shape, tfl.Conv2DOptionsT(**steps))
            case "depthwise":
                inputs += [net.constant(layer.weight.transpose(1, 2, 3, 0)), net.constant(layer.bias)]
                options = tfl.DepthwiseConv2DOptionsT(depthMultiplier=1, **steps)
                output = net.operator("DEPTHWISE_CONV_2D", inputs, shape, options)
            case "add":
                output = net.operator("ADD", inputs, shape, tfl.AddOptionsT())
            case "pool":
                inputs.append(net.constant(np.array([1, 2], "<i4")))
                output = net.operator("MEAN", inputs, [1, layer.channels], tfl.ReducerOptionsT(keepDims=False))
            case "dense":
                inputs += [net.constant(layer.weight), net.constant(layer.bias)]
                output = net.operator("FULLY_CONNECTED", inputs, [1, CLASSES], tfl.FullyConnectedOptionsT())
        tensors.append(output)
    net.graph.outputs = [tensors[-1]]
    net.write(path)


def write_ncnn(layers: list[Layer], path: Path) -> None:
    """ncnn's `.param`, one layer a line, and `.bin`, the weights in the same order.

    A line holds kind, name, how many inputs and outputs, their names, and parameters as `id=value`. A tensor that two
    layers read goes through a Split.
    """
    flag = bytes(4)  # before weights that are f32 as they stand
    lines = [f"Input in 0 1 t0 0={SIZE} 1={SIZE} 2=3"]
    tensors = 1
    weights = bytearray()
    uses = [number for layer in layers for number in layer.inputs]
    copies: dict[int, list[str]] = {}
    for number, layer in enumerate(layers, 1):
        inputs = [copies[tensor].pop() if tensor in copies else f"t{tensor}" for tensor in layer.inputs]
        match layer.kind:
            case "conv" | "depthwise":
                kind = "Convolution"
                parameters = f"0={layer.channels} 1={layer.kernel} 3={layer.stride} 4={layer.kernel // 2}"
                parameters += f" 5=1 6={layer.weight.size}"
                if layer.kind == "depthwise":
                    kind += "DepthWise"
                    parameters += f" 7={layer.channels}"
                if layer.relu6:
                    # The point matters: without it these are read as integers.
                    parameters += " 9=3 -23310=2,0.0,6.0"
            case "add":
                kind, parameters = "BinaryOp", "0=0"
            case "pool":
                kind, parameters = "Pooling", "0=1 4=1"
            case "dense":
                kind, parameters = "InnerProduct", f"0={CLASSES} 1=1 2={layer.weight.size}"
        lines.append(f"{kind} {layer.kind}{number} {len(inputs)} 1 {' '.join(inputs)} t{number} {parameters}")
        tensors += 1
        if layer.weight is not None:
            weights += flag + layer.weight.tobytes() + layer.bias.tobytes()
        if uses.count(number) == 2:
            copies[number] = [f"t{number}a", f"t{number}b"]
            lines.append(f"Split split{number} 1 2 t{number} t{number}a t{number}b")
            tensors += 2
    path.write_text("\n".join(["7767517", f"{len(lines)} {tensors}", *lines, ""]))
    path.with_suffix(".bin").write_bytes(weights)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: models.py FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        layers = build(name)
        write_onnx(layers, folder / f"{name}.onnx")
        write_tflite(layers, folder / f"{name}.tflite")
        write_ncnn(layers, folder / f"{name}.param")
        weights = sum(layer.weight.size + layer.bias.size for layer in layers if layer.weight is not None)
        print(f"{name}: {weights:,} weights and biases")


if __name__ == "__main__":
    main()
