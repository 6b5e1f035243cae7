"""Makes a test split out of MNIST's training samples: `python split.py MNIST FOLDER`. Its last 10,000 become `t10k`."""
import gzip
import sys
from pathlib import Path

COUNT, TEST = 60_000, 10_000


def read(folder: Path, name: str) -> bytes:
    path = folder / name
    return path.read_bytes() if path.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())


def main(mnist: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, header, size in (("images-idx3", 16, 784), ("labels-idx1", 8, 1)):
        data = read(mnist, f"train-{kind}-ubyte")
        for part, first, last in (("train", 0, COUNT - TEST), ("t10k", COUNT - TEST, COUNT)):
            head = data[:4] + (last - first).to_bytes(4, "big") + data[8:header]
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + data[header + first * size : header + last * size])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
