"""Accuracy on MNIST of ours and of PyTorch by the seed's recipe, then of ours by training.yaml: `make bench-mnist MNIST=DIR`.

    python bench.py SCONCE_TRAINER MNIST FOLDER [SEED ...]

Seeds differ by as much as the bar, so the means of few do, too: their difference's standard error is told beside it. Ends with 1 if the
means lie further apart than BAR, or int8 of training.yaml misses INT8_LOSES or INT8_BYTES, and with the trainer's code if it does not
accept its model."""
import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean, variance

import against_torch
import split

SEEDS = list(range(1, 10))  # unless others are named
BAR = 0.15  # points
INT8_LOSES, INT8_BYTES = 0.2, 0.26  # points, upper end at 95 %; of the bytes of f32
HERE = Path(__file__).parent


def train(trainer: str, manifest: Path, folder: Path, *flags: str) -> int:
    """Leaves the artifact beside the data; returns the exit code."""
    print(f"\n== {manifest.name}", flush=True)
    output = folder / manifest.stem
    return subprocess.run([trainer, "train", manifest, "--data", folder / "data", "--output", output, *flags]).returncode


def ours(trainer: str, folder: Path, seed: int) -> float:
    manifest, result = folder / f"seed-{seed}.yaml", folder / "result.json"
    manifest.write_text((HERE / "seed.yaml").read_text().replace("seed: 7", f"seed: {seed}"))
    if code := train(trainer, manifest, folder, "--result", str(result)):
        sys.exit(code)
    return json.loads(result.read_text())["result"]["accuracy"]


def compare(seeds: list[int], ours: list[float], peers: list[float]) -> tuple[str, bool]:
    """What is to be told, and whether the means lie close enough."""
    mean, peer = fmean(ours), fmean(peers)
    apart = round((mean - peer) * 100, 4)
    error = ((variance(ours) + variance(peers)) / len(seeds)) ** 0.5 * 100 if len(seeds) > 1 else float("nan")
    rows = [(f"seed {seed}", *pair) for seed, *pair in zip(seeds, ours, peers)] + [("mean", mean, peer)]
    lines = [f"{name:<8}{a:>9.4f}{b:>9.4f}" for name, a, b in rows]
    header, bar = f"{'':<8}{'ours':>9}{'PyTorch':>9}", f"{apart:+.2f} points, standard error {error:.2f}; bar ±{BAR}"
    is_close = abs(apart) <= BAR
    return "\n".join([header, *lines, f"{bar}: {'met' if is_close else 'missed'}"]), is_close


def int8(artifact: Path) -> tuple[str, bool]:
    """What is to be told of it, and whether it is small and right enough."""
    variants = {variant["name"]: variant for variant in json.loads((artifact / "variants.json").read_text())["variants"]}
    if "int8" not in variants:
        return "int8 was left out", False
    bytes = variants["int8"]["bytes"] / variants["f32"]["bytes"]
    evaluation = json.loads((artifact / "evaluation.json").read_text())
    loses = evaluation["variants"]["int8"]["paired"]["dropUpper95"] * 100
    told = f"int8: {bytes:.3f} of the bytes, bar {INT8_BYTES}; at most {loses:.2f} points lost, bar {INT8_LOSES}"
    is_good = bytes <= INT8_BYTES and loses <= INT8_LOSES
    return f"{told}: {'met' if is_good else 'missed'}", is_good


def main(trainer: str, mnist: Path, folder: Path, seeds: list[int]) -> int:
    split.main(mnist, folder / "data")
    of_ours = [ours(trainer, folder, seed) for seed in seeds]
    print("\n== PyTorch", flush=True)
    told, is_close = compare(seeds, of_ours, against_torch.accuracies(folder / "data", seeds))
    code = train(trainer, HERE / "training.yaml", folder)
    of_int8, is_good = ("no int8", False) if code else int8(folder / "training")
    print(f"\n== the seed's recipe\n{told}\n\n== training.yaml\n{of_int8}", flush=True)
    return code or int(not (is_close and is_good))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), [int(seed) for seed in sys.argv[4:]] or SEEDS))
