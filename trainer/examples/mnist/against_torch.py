"""The seed's network and recipe in PyTorch, on the same files: what `sconce-trainer` is held against.

    python split.py MNIST FOLDER            # the last 10,000 of MNIST's training samples become the test split
    python against_torch.py FOLDER 7 8 9    # prints the accuracy of each seed, and their mean
"""
import sys
from pathlib import Path

import numpy as np
import torch
from split import read
from torch import nn


def samples(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    images = np.frombuffer(read(folder, f"{part}-images-idx3-ubyte"), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    xs = (torch.from_numpy(images.astype(np.float32)) * 0.003921569 - 0.1307) / 0.3081
    labels = np.frombuffer(read(folder, f"{part}-labels-idx1-ubyte"), np.uint8, offset=8)
    return xs, torch.from_numpy(labels.astype(np.int64))


def network() -> nn.Module:
    """Initialised as Keras does it, as the recipe is."""
    layers = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5408, 128), nn.ReLU(), nn.Linear(128, 10)]
    for layer in layers:
        if hasattr(layer, "weight"):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def train(seed: int, xs: torch.Tensor, labels: torch.Tensor, epochs: int = 10, batch: int = 32) -> nn.Module:
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    for epoch in range(epochs):
        for indices in torch.randperm(len(xs)).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(xs[indices]), labels[indices]).backward()
            optimizer.step()
        print(f"seed {seed}: epoch {epoch + 1} of {epochs}", flush=True)
    return model


def accuracies(folder: Path, seeds: list[int]) -> list[float]:
    torch.set_num_threads(1)
    (xs, labels), (test_xs, test_labels) = samples(folder, "train"), samples(folder, "t10k")
    found = []
    for seed in seeds:
        model = train(seed, xs, labels).eval()
        with torch.no_grad():
            right = sum((model(x).argmax(1) == y).sum().item() for x, y in zip(test_xs.split(500), test_labels.split(500)))
        found.append(right / len(test_xs))
        print(f"seed {seed}: {found[-1]:.4f}", flush=True)
    return found


if __name__ == "__main__":
    print(f"mean {np.mean(accuracies(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]])):.4f}")
