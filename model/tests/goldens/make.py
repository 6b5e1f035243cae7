"""Losses and gradients of PyTorch in double precision, for `goldens.rs`: `make goldens`, or `python make.py goldens.json`.

Each network is written twice: as typed for us, and here as a PyTorch module whose parameters have the names that ours have.
Weights, inputs and targets are drawn by a formula that both know, so that none of them is stored."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

RATE, STEPS, SHOWN = 0.05, 20, 5


def drawn(name: str, count: int) -> np.ndarray:
    """In ±1, with 24 bits, from the name and the place: FNV-1a, then splitmix64."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def tensor(values: np.ndarray, shape) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32).astype(np.float64)).reshape(tuple(shape))


def draw_weights(module: nn.Module) -> None:
    """Matrices by how many values they sum up, the scales of norms about 1, biases small."""
    for name, parameter in module.named_parameters():
        values = drawn(name, parameter.numel())
        if parameter.dim() > 1:
            values = values / np.sqrt(parameter[0].numel())
        elif name.endswith(".weight"):
            values = 1 + 0.3 * values
        else:
            values = 0.3 * values
        parameter.data = tensor(values, parameter.shape)


def hidden(xs, activation):
    """The functions by the names that they have as typed."""
    known = {"relu": F.relu, "leakyRelu": F.leaky_relu, "hardSwish": F.hardswish, "silu": F.silu, "tanh": torch.tanh}
    return known[activation](xs)


class Pools(nn.Module):
    """Of odd sizes: 11 × 11 becomes 5 × 5."""

    typed = {"input": {"shape": [1, 28, 26]}, "layers": [
        {"conv2d": {"filters": 3, "kernel": 3, "activation": "relu"}}, {"maxPool2d": {}},
        {"conv2d": {"filters": 4, "kernel": 3, "activation": "relu"}}, {"maxPool2d": {}},
        {"flatten": {}}, {"dense": {"units": 8, "activation": "relu"}}, {"dense": {"units": 5, "activation": "softmax"}}]}
    batch, loss = 6, {"crossEntropy": {}}

    def __init__(self):
        super().__init__()
        self.conv2d_1, self.conv2d_2 = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3)
        self.dense_1, self.dense_2 = nn.Linear(4 * 5 * 5, 8), nn.Linear(8, 5)

    def forward(self, xs, lengths):
        xs = F.max_pool2d(F.relu(self.conv2d_1(xs)), 2)
        xs = F.max_pool2d(F.relu(self.conv2d_2(xs)), 2)
        return self.dense_2(F.relu(self.dense_1(xs.flatten(1))))


class Residual(nn.Module):
    typed = {"input": {"shape": [3, 9, 8]}, "layers": [
        {"residual": {"filters": 6, "stride": 2, "repeat": 2}}, {"globalAvgPool": {}}, {"dense": {"units": 4, "activation": "softmax"}}]}
    batch, loss = 6, {"crossEntropy": {"smoothing": 0.1, "classWeights": [1.0, 2.0, 0.5, 1.5]}}

    def __init__(self):
        super().__init__()
        for block, channels, stride in ((1, 3, 2), (2, 6, 1)):
            name = f"residual_1_{block}"
            self.add_module(f"{name}_conv1", nn.Conv2d(channels, 6, 3, stride, 1, bias=False))
            self.add_module(f"{name}_conv2", nn.Conv2d(6, 6, 3, 1, 1, bias=False))
            for part in ("conv1_bn", "conv2_bn"):
                self.add_module(f"{name}_{part}", nn.BatchNorm2d(6))
        self.residual_1_1_shortcut, self.residual_1_1_shortcut_bn = nn.Conv2d(3, 6, 1, 2, bias=False), nn.BatchNorm2d(6)
        self.dense_1 = nn.Linear(6, 4)

    def forward(self, xs, lengths):
        part = dict(self.named_children())
        for block in (1, 2):
            name = f"residual_1_{block}"
            around = self.residual_1_1_shortcut_bn(self.residual_1_1_shortcut(xs)) if block == 1 else xs
            ys = F.relu(part[f"{name}_conv1_bn"](part[f"{name}_conv1"](xs)))
            xs = F.relu(part[f"{name}_conv2_bn"](part[f"{name}_conv2"](ys)) + around)
        return self.dense_1(xs.mean((2, 3)))


class Inverted(nn.Module):
    """As MobileNetV2 has it, and ResNet-50's block behind it."""

    typed = {"input": {"shape": [4, 8, 7]}, "layers": [
        {"name": "i", "residual": {"filters": 5, "stride": 2, "block": "inverted", "expand": 2}},
        {"name": "j", "residual": {"filters": 5, "block": "inverted", "expand": 3}},
        {"name": "b", "residual": {"filters": 8, "block": "bottleneck"}},
        {"globalMaxPool": {}}, {"dense": {"units": 3, "activation": "softmax"}}]}
    batch, loss = 5, {"crossEntropy": {}}

    def __init__(self):
        super().__init__()

        def conv(name, *sizes, **more):
            self.add_module(name, nn.Conv2d(*sizes, bias=False, **more))
            self.add_module(f"{name}_bn", nn.BatchNorm2d(sizes[1]))

        for name, channels, wide, stride in (("i_1", 4, 8, 2), ("j_1", 5, 15, 1)):
            conv(f"{name}_expand", channels, wide, 1)
            conv(f"{name}_depthwise", wide, wide, 3, stride, 1, groups=wide)
            conv(f"{name}_project", wide, 5, 1)
        conv("b_1_shortcut", 5, 8, 1)
        conv("b_1_conv1", 5, 2, 1)
        conv("b_1_conv2", 2, 2, 3, 1, 1)
        conv("b_1_conv3", 2, 8, 1)
        self.dense_1 = nn.Linear(8, 3)

    def forward(self, xs, lengths):
        part = dict(self.named_children())

        def norm(name, xs):
            return part[f"{name}_bn"](part[name](xs))

        def inverted(name, xs):
            ys = F.relu6(norm(f"{name}_expand", xs))
            return norm(f"{name}_project", F.relu6(norm(f"{name}_depthwise", ys)))

        xs = inverted("i_1", xs)
        xs = inverted("j_1", xs) + xs
        ys = F.relu(norm("b_1_conv2", F.relu(norm("b_1_conv1", xs))))
        xs = F.relu(norm("b_1_conv3", ys) + norm("b_1_shortcut", xs))
        return self.dense_1(xs.amax((2, 3)))


class Windows(nn.Module):
    """Groups, holes, uneven strides, padding, two ways side by side; several labels at once."""

    typed = {"input": {"shape": [4, 11, 9]}, "layers": [
        {"name": "a", "conv2d": {"filters": 6, "kernel": 3, "stride": [2, 1], "padding": 1, "groups": 2, "activation": "leakyRelu"}},
        {"name": "b", "conv2d": {"filters": 4, "kernel": 3, "dilation": [2, 1], "stride": [2, 1], "padding": 2, "activation": "hardSwish"}, "from": "input"},
        {"name": "p", "maxPool2d": {"size": [1, 3], "stride": 1}, "from": "b"},
        {"name": "s", "separableConv2d": {"filters": 3, "kernel": [1, 1], "activation": "silu"}, "from": "p"},
        {"name": "c", "concat": {}, "from": ["a", "s"]},
        {"avgPool2d": {"size": 3, "stride": 2, "padding": 1}}, {"maxPool2d": {"size": 2, "stride": 1}},
        {"flatten": {}}, {"dense": {"units": 3, "activation": "sigmoid"}}]}
    batch, loss = 4, {"binaryCrossEntropy": {}}

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 6, 3, (2, 1), 1, groups=2), nn.Conv2d(4, 4, 3, (2, 1), 2, dilation=(2, 1))
        self.s_depthwise, self.s_pointwise = nn.Conv2d(4, 4, 1, groups=4, bias=False), nn.Conv2d(4, 3, 1)
        self.dense_1 = nn.Linear(9 * 2 * 4, 3)

    def forward(self, xs, lengths):
        a, b = hidden(self.a(xs), "leakyRelu"), hidden(self.b(xs), "hardSwish")
        s = hidden(self.s_pointwise(self.s_depthwise(F.max_pool2d(b, (1, 3), 1))), "silu")
        xs = F.avg_pool2d(torch.cat([a, s], 1), 3, 2, 1, count_include_pad=False)
        return self.dense_1(F.max_pool2d(xs, 2, 1).flatten(1))


class Gru(nn.Module):
    """Sequences of different lengths, packed."""

    typed = {"input": {"shape": [7, 3]}, "layers": [
        {"gru": {"units": 4, "layers": 2, "bidirectional": True, "returnSequences": True}}, {"statsPool": {}},
        {"dense": {"units": 3, "activation": "softmax"}}]}
    batch, loss, lengths = 4, {"crossEntropy": {}}, [7, 3, 5, 2]

    def __init__(self):
        super().__init__()
        self.gru_1, self.dense_1 = nn.GRU(3, 4, 2, batch_first=True, bidirectional=True), nn.Linear(16, 3)

    def forward(self, xs, lengths):
        packed = pack_padded_sequence(xs, lengths, batch_first=True, enforce_sorted=False)
        ys, _ = pad_packed_sequence(self.gru_1(packed)[0], batch_first=True)
        rows = [row[:length] for row, length in zip(ys, lengths)]
        pooled = [torch.cat([row.mean(0), (row.var(0, unbiased=False) + 1e-5).sqrt()]) for row in rows]
        return self.dense_1(torch.stack(pooled))


class Lstm(nn.Module):
    typed = {"input": {"shape": [6, 4]}, "layers": [{"lstm": {"units": 5, "bidirectional": True}}, {"dense": {"units": 2}}]}
    batch, loss = 5, {"huber": {"delta": 0.5}}

    def __init__(self):
        super().__init__()
        self.lstm_1, self.dense_1 = nn.LSTM(4, 5, batch_first=True, bidirectional=True), nn.Linear(10, 2)

    def forward(self, xs, lengths):
        _, (states, _) = self.lstm_1(xs)
        return self.dense_1(torch.cat([states[0], states[1]], 1))


class Rnn(nn.Module):
    typed = {"input": {"shape": [6, 4]}, "layers": [
        {"rnn": {"units": 5, "layers": 2, "activation": "relu"}}, {"dense": {"units": 2}}]}
    batch, loss = 5, {"poisson": {}}

    def __init__(self):
        super().__init__()
        self.rnn_1, self.dense_1 = nn.RNN(4, 5, 2, nonlinearity="relu", batch_first=True), nn.Linear(5, 2)

    def forward(self, xs, lengths):
        return self.dense_1(self.rnn_1(xs)[0][:, -1])


class Words(nn.Module):
    typed = {"input": {"shape": [9], "dtype": "u32"}, "layers": [
        {"embedding": {"vocabulary": 11, "dimension": 6, "paddingId": 2}},
        {"conv1d": {"filters": 5, "kernel": 3, "padding": "causal", "activation": "tanh"}}, {"maxPool1d": {"size": 3, "stride": 2}},
        {"layerNorm": {}}, {"globalMaxPool": {}}, {"dense": {"units": 4, "activation": "softmax"}}]}
    batch, loss, words = 5, {"crossEntropy": {}}, 11

    def __init__(self):
        super().__init__()
        self.embedding_1, self.conv1d_1 = nn.Embedding(11, 6, padding_idx=2), nn.Conv1d(6, 5, 3)
        self.layer_norm_1, self.dense_1 = nn.LayerNorm(5), nn.Linear(5, 4)

    def forward(self, xs, lengths):
        xs = F.pad(self.embedding_1(xs).transpose(1, 2), (2, 0))
        xs = F.max_pool1d(torch.tanh(self.conv1d_1(xs)), 3, 2).transpose(1, 2)
        return self.dense_1(self.layer_norm_1(xs).amax(1))


class Autoencoder(nn.Module):
    typed = {"input": {"shape": [2, 8, 6]}, "layers": [
        {"conv2d": {"filters": 5, "kernel": 3, "stride": 2, "padding": 1, "batchNorm": True, "activation": "tanh"}},
        {"upsample2d": {}}, {"conv2d": {"filters": 2, "kernel": 3, "padding": "same"}}]}
    batch, loss = 4, {"meanSquares": {}}

    def __init__(self):
        super().__init__()
        self.conv2d_1, self.conv2d_1_bn = nn.Conv2d(2, 5, 3, 2, 1, bias=False), nn.BatchNorm2d(5)
        self.conv2d_2 = nn.Conv2d(5, 2, 3, padding=1)

    def forward(self, xs, lengths):
        xs = torch.tanh(self.conv2d_1_bn(self.conv2d_1(xs)))
        return self.conv2d_2(F.interpolate(xs, scale_factor=2, mode="nearest"))


def loss_of(loss: dict, ys: torch.Tensor) -> torch.Tensor:
    (kind, more), = loss.items()
    if kind == "crossEntropy":
        labels = torch.arange(len(ys)) * 3 % ys.shape[1]
        weights = more.get("classWeights")
        weights = weights and torch.tensor(weights)
        return F.cross_entropy(ys, labels, weights, label_smoothing=more.get("smoothing", 0.0))
    targets = tensor((drawn("targets", ys.numel()) + 1) / 2, ys.shape)
    if kind == "binaryCrossEntropy":
        return F.binary_cross_entropy_with_logits(ys, targets)
    if kind == "huber":
        return F.huber_loss(ys, targets, delta=more["delta"])
    if kind == "poisson":
        rate = F.softplus(ys)
        return (rate - targets * rate.log()).mean()
    return F.mse_loss(ys, targets)


def shown(values: torch.Tensor) -> dict:
    """The length of all, and some of them with their places."""
    flat = values.detach().flatten()
    places = range(0, len(flat), max(1, len(flat) // SHOWN))
    return {"norm": float(f"{flat.norm().item():.9g}"), "values": [[at, float(f"{flat[at].item():.9g}")] for at in places]}


def case(module: nn.Module) -> dict:
    kind = type(module)
    draw_weights(module)
    shape = [kind.batch, *kind.typed["input"]["shape"]]
    if words := getattr(kind, "words", None):
        xs = (torch.arange(int(np.prod(shape))) * 5 % words).reshape(shape)
    else:
        xs = tensor(drawn("xs", int(np.prod(shape))), shape)
    lengths = getattr(kind, "lengths", None)
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    steps = []
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        loss = loss_of(kind.loss, module(xs, lengths))
        loss.backward()
        if step in (1, STEPS):
            gradients = {name: shown(parameter.grad) for name, parameter in module.named_parameters()}
            steps.append({"step": step, "loss": float(f"{loss.item():.9g}"), "gradients": gradients})
        optimizer.step()
    statistics = {name: shown(buffer) for name, buffer in module.named_buffers() if "running" in name}
    known = {"name": kind.__name__.lower(), "architecture": kind.typed, "batch": kind.batch, "loss": kind.loss}
    return known | {"lengths": lengths, "words": words, "steps": steps, "statistics": statistics}


def main(path: Path) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    kinds = [Pools, Residual, Inverted, Windows, Gru, Lstm, Rnn, Words, Autoencoder]
    cases = [case(kind()) for kind in kinds]
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text(f'{{"torch": "{torch.__version__.split("+")[0]}", "rate": {RATE}, "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]))
