"""How long `vit check` takes on a folder of small photos: `python tests/bench/check_folder.py [pictures]`.

Crops of scikit-learn's two photos, 32 to 96 pixels a side, as JPEG files of ten classes; of each thousand one is a
copy, one cut off. Prints wall and processor seconds, the start of the program included, and adds a line to results/.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from paired import SEED, add
from PIL import Image
from sklearn.datasets import load_sample_images

CLASSES, SIDES, QUALITY, ONE_IN = 10, (32, 96), 90, 1000


def make(root: Path, count: int) -> None:
    """Of every `ONE_IN` pictures one is a copy of the one before, one lost the end of its file."""
    rng, photos = np.random.default_rng(SEED), load_sample_images()["images"]
    for label in range(CLASSES):
        (root / f"class {label}").mkdir()
    for i in range(count):
        path = root / f"class {i % CLASSES}" / f"{i:06}.jpg"
        if i % ONE_IN == 1:
            path.write_bytes((root / f"class {(i - 1) % CLASSES}" / f"{i - 1:06}.jpg").read_bytes())
            continue
        height, width = rng.integers(SIDES[0], SIDES[1] + 1, 2)
        photo = photos[i % len(photos)]
        top, left = (int(rng.integers(side - part)) for side, part in zip(photo.shape, (height, width), strict=False))
        noise = rng.normal(0, 3, (height, width, 1))  # so that no crop comes twice
        crop = photo[top : top + height, left : left + width] + noise
        Image.fromarray(crop.clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
        if i % ONE_IN == 2:
            path.write_bytes(path.read_bytes()[:-200])


def measured(root: Path) -> dict[str, Any]:
    """Seconds of one `vit check`, and what it found."""
    report = root.parent / "check.json"
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "vit", "check", str(root), "--json", str(report)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = json.loads(report.read_text())
    counts = {"copies": len(found["duplicates"]), "cut_off": len(found["unreadable"])}
    return {"seconds": round(wall, 2), "cpu_seconds": round(cpu, 2), **counts}


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photos"
        root.mkdir()
        make(root, count)
        size = sum(path.stat().st_size for path in root.rglob("*.jpg"))
        found = {"pictures": count, "bytes": size, **measured(root)}
    print(f"{count:,} pictures, {size / 2**20:.0f} MiB: {found['seconds']} s, {found['cpu_seconds']} s of processors")
    expected = count // ONE_IN
    if (found["copies"], found["cut_off"]) != (expected, expected):
        raise SystemExit(f"expected {expected} copies and as many cut off, got {found}")
    command = f"python tests/bench/check_folder.py {count}"
    add("check_folder", {"command": command, "seed": SEED, **found})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
