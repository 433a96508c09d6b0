"""Compare the trainings of two commits: `python -m tests.digests.compare A B [--cases NAME ...]`.

The code of each commit trains the small runs of CASES in a temporary folder. The weights, metrics.csv, predictions and
accuracies of a run are reduced to digests, which are compared value by value. A restructuring keeps all of them.

Digests depend on the processor and the installed packages, so both commits are trained on one machine. They are cached
by commit, in --cache. An uncommitted state can be compared by the commit that `git stash create` prints.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import platform
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent

SMALL = (
    *("dataset.size=24", "dataset.batch_size=20", "dataset.schedule.epochs=2", "dataset.num_workers=0"),
    *("logger=none", "plots=false", "trainer.accelerator=cpu"),
)
FACES = ("dataset=faces", "dataset.train_size=80", "dataset.val_size=40", "dataset.test_size=40", *SMALL)
NARROW = ("model.width=16",)  # oneDNN 3.12 writes out of bounds in convolutions of 4 or 8 channels
CASES: dict[str, tuple[str, ...]] = {
    "baseline": (*FACES, *NARROW, "split=baseline"),
    "m1-paper": (*FACES, *NARROW, "split=m1", "model.memory=paper"),
    "m1-lean": (*FACES, *NARROW, "split=m1", "model.memory=lean"),
    "m3-bf16": (*FACES, *NARROW, "split=m3", "trainer.precision=bf16-mixed"),
    "refit": (*FACES, *NARROW, "split=m1", "model.memory=paper", "refit=true"),
    "recipe": (
        *("name=recipe", *FACES, *NARROW, "split=m2", "callbacks=ema", "callbacks.average.multi_avg_fn.decay=0.9"),
        *("mix=cutmix", "scheduler=one_cycle", "optimizer=adamw", "label_smoothing=0.1"),
    ),
    "distillation": (*FACES, *NARROW, "name=distillation", "split=m3", "teacher={baseline}"),
    "other-classes": (
        *("dataset=folder", "dataset.root=folder", *SMALL, *NARROW, "split=baseline"),
        *("name=other-classes", "init_from={baseline}", "init_missing_classes=random"),
    ),
    "albumentations": (*FACES, *NARROW, "split=m3", "augment.backend=albumentations", "dataset.num_workers=2"),
    "two-ranks": (*FACES, *NARROW, "split=m2", "trainer=ddp", "trainer.devices=2"),
    "killed": (
        *(*FACES, *NARROW, "split=m3", "name=killed", "dataset.schedule.epochs=3", "dataset.balance.target=max"),
        *("+callbacks.kill._target_=kill_once.KillOnce", "+callbacks.kill.epoch=2", "+callbacks.kill.marker=killed"),
    ),
    "timm": (*FACES, "dataset.size=96", "split=m2", "model=timm", "model.name=test_convnext"),
    "votes": ("dataset=ferplus", "dataset.root=ferplus", *SMALL, *NARROW, "split=m3", "dataset.targets=votes"),
}
"""Case -> overrides of its training. `{CASE}` stands for the name of another case's run.

Where too much differs from the defaults for the run to be named by it, `name` does.
"""
NEEDED = {"refit": "m1-paper", "distillation": "baseline", "other-classes": "baseline"}
"""Case -> the case whose run it starts from."""

MOVED = (
    ("conf/protocol/faces.yaml", "dataset.schedule.epochs", "trainer.max_epochs"),
    ("conf/loss/cross_entropy.yaml", "label_smoothing", "loss.label_smoothing"),
)
"""(file that exists since a key moved, start of the override before, the same since): kept for code on both sides."""

MEASURED = ("seconds", "time", "images_per_second", "memory", "throughput")
"""Columns of metrics.csv whose names contain one of these depend on the machine's load."""
FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


def adapted(overrides: tuple[str, ...], code: Path) -> list[str]:
    """The overrides by the names that the code in the folder `code` has for them."""
    words = list(overrides)
    for file, before, since in MOVED:
        if (code / file).exists():
            words = [since + word.removeprefix(before) if word.startswith(before) else word for word in words]
    return words


# Data -------------------------------------------------------------------------------------------------------------


def write_folder(root: Path) -> None:
    """Train, val and test folders of three classes, of which only two are a baseline's: grey images with noise."""
    for part, count in (("train", 20), ("val", 8), ("test", 8)):
        for number, name in enumerate(("happy", "sad", "sleepy")):
            for index in range(count):
                path = root / part / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = np.random.default_rng((len(part), number, index)).integers(0, 64, (32, 32, 3), np.uint8)
                Image.fromarray(noise + np.uint8(50 * number)).save(path)


def write_ferplus(root: Path) -> None:
    """fer2013.csv and fer2013new.csv: seven classes, images whose grey is the class's, ten raters who differ."""
    root.mkdir()
    rows, votes = ["emotion,pixels,Usage"], [",".join(("Usage", "Image name", *FERPLUS))]
    to_ferplus = (4, 5, 6, 1, 3, 2, 0)  # FER2013's anger, disgust, fear, happy, sad, surprise, neutral
    for usage, count in (("Training", 84), ("PublicTest", 28), ("PrivateTest", 28)):
        for _ in range(count):
            index = len(rows) - 1
            emotion = index % 7
            grey = 30 * emotion + np.random.default_rng(index).integers(0, 40, 48 * 48)
            rows.append(f"{emotion},{' '.join(map(str, grey))},{usage}")
            raters = [0] * len(FERPLUS)
            raters[to_ferplus[emotion]] = 6 + index % 3
            raters[(to_ferplus[emotion] + 1 + index % 5) % 7] += 4 - index % 3
            votes.append(",".join((usage, f"fer{index:07d}.png", *map(str, raters))))
    (root / "fer2013.csv").write_text("\n".join(rows) + "\n")
    (root / "fer2013new.csv").write_text("\n".join(votes) + "\n")


# Training ---------------------------------------------------------------------------------------------------------


def train(code: Path, folder: Path, overrides: list[str], log_file: Path) -> int:
    """The exit status of a training by the code in `code`, with `folder` as current folder."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(code), str(HERE))),
        "OMP_NUM_THREADS": "1",
        "OPENCV_FOR_THREADS_NUM": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }
    with log_file.open("ab") as log:
        command = [sys.executable, "-m", "fer_voting.train", *overrides]
        return subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log).returncode


def train_case(case: str, code: Path, folder: Path, names: dict[str, str]) -> str:
    """Train a case; the name of its run. `names` has the runs of the cases that were trained before.

    Raises RuntimeError if the training fails.
    """
    overrides = adapted(tuple(word.format_map(names) for word in CASES[case]), code)
    runs = folder / "outputs/runs"
    before = set(os.listdir(runs)) if runs.exists() else set()
    log_file = folder / f"{case}.txt"
    status = train(code, folder, overrides, log_file)
    if case == "killed":
        if status == 0:
            raise RuntimeError("the training was not killed")
        if status == -signal.SIGKILL:
            status = train(code, folder, overrides, log_file)
    if status:
        raise RuntimeError(f"{' '.join(overrides)}\nexit status {status}:\n{log_file.read_text()[-1500:]}")
    (name,) = set(os.listdir(runs)) - before
    return name


# Digests ----------------------------------------------------------------------------------------------------------


def digest(array: np.ndarray[Any, Any]) -> str:
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{array.dtype} {list(array.shape)} {content[:16]}"


def digests(run: Path) -> dict[str, dict[str, str]]:
    """Kind of value -> name -> digest, or the value itself where it is a number."""
    weights, predictions = {}, {}
    for path in sorted(run.glob("checkpoints/best-*.ckpt")):
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        weights |= {f"{path.stem} {key}": digest(value.numpy()) for key, value in state.items()}
    for path in sorted(run.glob("predictions/*.npz")):
        with np.load(path) as arrays:
            predictions |= {f"{path.stem} {key}": digest(arrays[key]) for key in arrays.files}
    with (run / "metrics.csv").open(newline="") as file:
        metrics = {
            f"epoch {row['epoch']} {column}": cell
            for row in csv.DictReader(file)
            for column, cell in row.items()
            if not any(word in column for word in MEASURED)
        }
    votes = json.loads((run / "result.json").read_text())["votes"]
    accuracies = {
        f"{vote} {part}": repr(values[part]["accuracy"])
        for vote, values in votes.items()
        for part in ("val", "test")
        if part in values
    }
    return {"run": {"name": run.name}, "weights": weights, "metrics": metrics} | {
        "predictions": predictions,
        "accuracies": accuracies,
    }


def cache_file(cache: Path, commit: str, case: str) -> Path:
    depends_on = [
        CASES[case],
        CASES.get(NEEDED.get(case, "")),
        torch.__version__,
        platform.node(),
        platform.processor(),
    ]
    return cache / commit / f"{case}-{hashlib.sha256(repr(depends_on).encode()).hexdigest()[:8]}.json"


def digests_of(commit: str, cases: list[str], cache: Path) -> dict[str, dict[str, Any]]:
    """Case -> digests of its run by the code of `commit`, or `error`. Cases that are not in the cache are trained."""
    missing = [case for case in cases if not cache_file(cache, commit, case).exists()]
    if missing:
        with tempfile.TemporaryDirectory(prefix="digests-") as temporary:
            code, folder = Path(temporary, "code"), Path(temporary, "work")
            # Not `git worktree`, which a kill would leave registered.
            archive = subprocess.run(["git", "archive", commit], cwd=REPO, check=True, capture_output=True).stdout
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(code, filter="data")
            folder.mkdir()
            write_folder(folder / "folder")
            write_ferplus(folder / "ferplus")
            errors = train_cases(missing, code, folder, commit, cache)
    else:
        errors = {}
    return {case: errors.get(case) or json.loads(cache_file(cache, commit, case).read_text()) for case in cases}


def train_cases(cases: list[str], code: Path, folder: Path, commit: str, cache: Path) -> dict[str, dict[str, Any]]:
    """Train the cases and put their digests into the cache; case -> `error` of those that failed."""
    names: dict[str, str] = {}
    errors: dict[str, dict[str, Any]] = {}
    for case in dict.fromkeys(name for wanted in cases for name in (NEEDED.get(wanted), wanted) if name):
        started = time.monotonic()
        try:
            names[case] = train_case(case, code, folder, names)
            content = json.dumps(digests(folder / "outputs/runs" / names[case]), indent=1)
        except (RuntimeError, KeyError) as error:
            errors[case] = {"error": {type(error).__name__: str(error)}}
            print(f"{commit[:12]} {case}: {error}", flush=True)
            continue
        path = cache_file(cache, commit, case)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(content)
        draft.replace(path)
        print(f"{commit[:12]} {case}: {time.monotonic() - started:.0f} s", flush=True)
    return errors


# Comparison -------------------------------------------------------------------------------------------------------


def differences(a: dict[str, Any], b: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The differences between the digests of two runs: those that count, and those that are only reported.

    A value that one side lacks counts where it is a weight. New or dropped metrics and arrays are only reported.
    """
    counted, reported = [], []
    for kind in sorted(a.keys() | b.keys()):
        left, right = a.get(kind, {}), b.get(kind, {})
        if not left.keys() & right.keys():
            counted.append(f"{kind}: nothing in common")
        for name in sorted(left.keys() | right.keys()):
            if name not in left or name not in right:
                texts = counted if kind == "weights" else reported
                texts.append(f"{kind}: {name}: only in {'B' if name in right else 'A'}")
            elif left[name] != right[name]:
                counted.append(f"{kind}: {name}: {left[name]} in A, {right[name]} in B")
    return counted, reported


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs=2, metavar="COMMIT", help="A and B")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=" ".join(CASES))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir(), "fer_voting-digests"))
    options = parser.parse_args()
    names = [f"{name}^{{commit}}" for name in options.commits]
    a, b = subprocess.run(
        ["git", "rev-parse", *names], cwd=REPO, check=True, capture_output=True, text=True
    ).stdout.split()
    of_a, of_b = (digests_of(commit, options.cases, options.cache) for commit in (a, b))
    failed = False
    for case in options.cases:
        counted, reported = differences(of_a[case], of_b[case])
        broken = "error" in of_a[case] or "error" in of_b[case]
        failed |= bool(counted) or broken
        count = sum(map(len, of_a[case].values()))
        print(f"{case}: {'FAILED' if broken else f'{len(counted)} DIFFER' if counted else 'equal'} ({count} values)")
        for text in (*counted[:8], *reported[:8]):
            print(f"    {text}"[:400])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
