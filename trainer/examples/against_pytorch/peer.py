"""Networks in PyTorch, eager, on one thread: reads weights.safetensors and batch.safetensors of a folder, and answers each line,
`OPTIMISER STEPS`, by a line: what each of the steps took, in microseconds of the CPU, and its loss."""

import json
import pathlib
import sys
import time

import torch
from safetensors.torch import load_file
from torch import nn


class SeedCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv2d_1, self.dense_1, self.dense_2 = nn.Conv2d(1, 32, 3), nn.Linear(5408, 128), nn.Linear(128, 10)

    def forward(self, xs):
        xs = nn.functional.max_pool2d(torch.relu(self.conv2d_1(xs)), 2).flatten(1)
        return self.dense_2(torch.relu(self.dense_1(xs)))


class Gru(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru_1, self.dense_1 = nn.GRU(40, 128, 2, batch_first=True), nn.Linear(128, 12)

    def forward(self, xs):
        return self.dense_1(self.gru_1(xs)[0][:, -1])


class ResNet18(nn.Module):
    """For images of 32×32: a first convolution of 3×3, and no pool behind it."""

    def __init__(self):
        super().__init__()
        self.norm("conv2d_1", 3, 64, 3, 1)
        channels = 64
        for stage, filters in enumerate((64, 128, 256, 512), 1):
            for block in (1, 2):
                name, stride = f"residual_{stage}_{block}", 2 if block == 1 and stage > 1 else 1
                if stride == 2:
                    self.norm(f"{name}_shortcut", channels, filters, 1, stride)
                self.norm(f"{name}_conv1", channels, filters, 3, stride)
                self.norm(f"{name}_conv2", filters, filters, 3, 1)
                channels = filters
        self.dense_1 = nn.Linear(512, 10)

    def norm(self, name, channels, filters, kernel, stride):
        self.add_module(name, nn.Conv2d(channels, filters, kernel, stride, kernel // 2, bias=False))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(filters))

    def forward(self, xs):
        def norm(name, xs):
            return getattr(self, f"{name}_bn")(getattr(self, name)(xs))

        xs = torch.relu(norm("conv2d_1", xs))
        for stage in (1, 2, 3, 4):
            for block in (1, 2):
                name = f"residual_{stage}_{block}"
                around = norm(f"{name}_shortcut", xs) if hasattr(self, f"{name}_shortcut") else xs
                xs = torch.relu(norm(f"{name}_conv2", torch.relu(norm(f"{name}_conv1", xs))) + around)
        return self.dense_1(xs.mean((2, 3)))


class Training:
    """A network with its optimiser: `plain` is Adam as it comes, `fused` its one pass over all weights."""

    def __init__(self, network, weights, batch, rate, optimiser):
        self.network, self.batch = network, batch
        network.load_state_dict(weights, strict=False)
        missing = [name for name in network.state_dict() if name not in weights and "num_batches" not in name]
        unknown = [name for name in weights if name not in network.state_dict()]
        if missing or unknown:
            raise SystemExit(f"peer: weights {missing} are missing, {unknown} unknown")
        more = {"fused": True} if optimiser == "fused" else {}
        self.optimiser = torch.optim.Adam(network.parameters(), lr=rate, **more)

    def step(self):
        self.optimiser.zero_grad()
        loss = nn.functional.cross_entropy(self.network(self.batch["xs"]), self.batch["labels"].long())
        loss.backward()
        self.optimiser.step()
        return loss.item()


def main(folder, name, rate):
    torch.set_num_threads(1)
    torch.manual_seed(7)
    weights, batch = load_file(folder / "weights.safetensors"), load_file(folder / "batch.safetensors")
    kinds = {"seed_cnn": SeedCnn, "gru": Gru, "resnet_18_32": ResNet18}
    trainings = {kind: Training(kinds[name](), weights, batch, rate, kind) for kind in ("plain", "fused")}
    print(json.dumps(f"PyTorch {torch.__version__} with {torch.backends.cpu.get_cpu_capability()}"), flush=True)
    for line in sys.stdin:
        kind, steps = line.split()
        micros, losses = [], []
        for _ in range(int(steps)):
            began = time.process_time()
            losses.append(trainings[kind].step())
            micros.append((time.process_time() - began) * 1e6)
        print(json.dumps({"micros": micros, "losses": losses}), flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
