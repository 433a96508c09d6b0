"""Time and memory by the number of images and of runs: `python -m tests.scale.run [--images N ...] [--runs N]`.

A synthetic index of as many images as AffectNet has (287,401), and of ten million: packing without decoding, opening
the pack, dividing it, writing and reading its manifest, and an epoch's sample; predictions to metrics with intervals.
Then a folder of 1,000 finished runs: `sweep status` and `report`. Each step is a process of its own. Time is the
processor's, because other programs may be running; memory is the most that was resident.
"""

import contextlib
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from experiments.common import make_parser, run_config, write_result
from fer_voting import report as report_command
from fer_voting import sweep as sweep_command
from fer_voting.data.images import PreparedImage
from fer_voting.data.index import Index, Sample
from fer_voting.data.manifest import read_manifest, write_manifest
from fer_voting.data.pack import Pack, build_pack
from fer_voting.data.sampling import EpochSampler, sample_share
from fer_voting.results.evaluation import evaluate_predictions, write_predictions
from fer_voting.results.table import Table
from fer_voting.runs.run import Run
from fer_voting.runs.sweeps import Sweep
from fer_voting.system.environment import describe_device, git_commit, package_versions
from fer_voting.system.messages import progress_bar
from fer_voting.targets import Classes
from fer_voting.votes import VOTES, CropOutputs, soft_vote

IMAGES = (28_740, 287_401)
CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
SHARES = (0.26, 0.47, 0.09, 0.05, 0.02, 0.01, 0.1)
"""AffectNet's, about."""
CROPS = 10
KEY = {"size": 1, "layout": "synthetic"}
MOST_PREDICTIONS = 1_000_000
"""More than any test set has; their crop logits take 280 bytes an image."""


def _labels(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).choice(len(CLASSES), count, p=SHARES)


def _decode(sample: Sample, size: int) -> PreparedImage:
    return np.zeros((size, size, 3), np.uint8), int(sample.name[5:]).to_bytes(16, "little")


def pack(folder: Path, count: int) -> None:
    """Everything that `fer_voting.pack` does for an image but decoding it."""
    labels = [CLASSES[label] for label in _labels(count).tolist()]
    read = lambda: Index([Sample(f"face {n:08d}", label, "train") for n, label in enumerate(labels)])  # noqa: E731
    build_pack(folder / "pack", {**KEY, "count": count}, read, _decode)


def reopen(folder: Path, count: int) -> None:
    assert len(Pack(folder / "pack")) == count


def divide(folder: Path, count: int) -> None:
    """A stratified tenth validates."""
    found = Pack(folder / "pack")
    val = sample_share(found.hashes, found.label_ids, 0.1, seed=0)
    assert len(val) == round(0.1 * count)
    train = np.delete(np.arange(count), val)
    write_manifest(folder / "manifest.csv", found, {"train": train, "val": val})


def reuse(folder: Path, count: int) -> None:
    found = Pack(folder / "pack")
    parts = read_manifest(folder / "manifest.csv", found, found.good)
    assert sum(map(len, parts.values())) == count


def epoch(folder: Path, count: int) -> None:
    """The batches of an epoch that is balanced to the mean."""
    found = Pack(folder / "pack")
    sampler = EpochSampler(np.arange(count), found.label_ids, batch_size=135, seed=0, target=count // len(CLASSES))
    assert sum(map(len, sampler)) == sampler.epoch_size


def metrics(folder: Path, count: int) -> None:
    """The metrics that `evaluate` computes from the crop logits of each image."""
    labels = _labels(count)
    generator = torch.Generator().manual_seed(0)
    outputs = CropOutputs(torch.randn(count, CROPS, len(CLASSES), generator=generator))
    assert evaluate_predictions(outputs, labels, CLASSES, soft_vote)["macro_f1"] > 0
    names = [f"face {number:08d}" for number in range(count)]
    write_predictions(folder / "predictions.csv", names, labels, outputs, CLASSES, soft_vote)


STEPS: dict[str, Callable[[Path, int], None]] = {
    "pack, without decoding": pack,
    "open the pack": reopen,
    "divide, write the manifest": divide,
    "divide by a manifest": reuse,
    "an epoch's batches": epoch,
    "metrics and CSV of predictions": metrics,
}


def make_runs(output_dir: Path, count: int) -> str:
    """`count` finished runs of one sweep, of four splits; the sweep's name. Their predictions are of 100 images."""
    labels = _labels(100)
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(100, CROPS, len(CLASSES))).astype(np.float32)
    logits[np.arange(60), :, labels[:60]] += 2
    of_votes = {}
    for vote, function in VOTES.items():
        values = Classes().judge(function(torch.from_numpy(logits)), torch.from_numpy(labels), CLASSES)
        of_votes[vote] = {"best_epoch": 1, "checkpoint": f"checkpoints/best-{vote}.ckpt", "val": values, "test": values}
    jobs = []
    for split in ("baseline", "m1", "m2", "m3"):
        words = ["dataset=faces", f"split={split}", f"output_dir={output_dir}"]
        config = run_config(words)
        text = OmegaConf.to_yaml(OmegaConf.create(config))
        counts = dict(zip(CLASSES, np.bincount(labels, minlength=len(CLASSES)).tolist(), strict=True))
        for seed in range(count // 4):
            run = Run(output_dir, config["name"].replace("-seed0", f"-seed{seed}"))
            run.dir.mkdir(parents=True)
            own = text.replace("-seed0", f"-seed{seed}").replace("\nseed: 0\n", f"\nseed: {seed}\n")
            (run.dir / "config.yaml").write_text(own)
            result = {
                "format": 3, "name": run.name, "variant": "", "status": "finished", "error": None, "dataset": "faces",
                "split": split, "seed": seed, "refit": False, "sweep": "large", "started": "2026-01-02T03:04:05+00:00",
                "seconds": 100.0, "versions": package_versions(), "git_commit": "0123456789ab", "synthetic": True,
                "class_names": list(CLASSES), "counts": {"train": counts, "val": counts, "test": counts},
                "data_fingerprint": "00", "data": {"fingerprint": "00"}, "epochs": 2, "votes": of_votes,
                "forward_mib_per_image": 1.0, "parameters": 1, "gmacs": 0.1, "torch_gmacs": 0.1,
                "images_per_second": 50.0, "precision": "32-true", "device": "none", "tf32": False, "ranks": 1,
            }  # fmt: skip
            (run.dir / "result.json").write_text(json.dumps(result, indent=1))
            run.metrics_file.write_text("epoch,train/loss,val/soft/accuracy\n0,1.9,0.5\n1,1.5,0.6\n")
            for part in ("val", "test"):
                path = run.predictions_file("soft", part)
                path.parent.mkdir(exist_ok=True)
                np.savez_compressed(path, logits=logits, labels=labels, names=np.arange(100).astype(str))
            jobs.append({"overrides": [*words[:2], f"seed={seed}"], "run": run.name, "voting": "soft"})
    Sweep(output_dir / "sweeps" / "large").write(["split=..."], jobs)
    return "large"


def status(folder: Path, count: int) -> None:
    """`python -m fer_voting.sweep status`."""
    with contextlib.suppress(SystemExit):
        sweep_command.main(["status", str(folder / "outputs" / "sweeps" / "large")])


def report(folder: Path, count: int) -> None:
    """`python -m fer_voting.report`."""
    report_command.main(["--output-dir", str(folder / "outputs")])
    assert (folder / "outputs" / "report.html").stat().st_size > 10_000


RUN_STEPS: dict[str, Callable[[Path, int], None]] = {"sweep status": status, "report": report}
MOST_SECONDS = {"sweep status": 2, "report": 30}


def _measure(step: str, folder: Path, count: int, pipe: Any) -> None:
    sys.stdout = sys.stderr = open(folder / "printed.txt", "w")  # noqa: SIM115 - for the life of this process
    before, mib_before, start = resource.getrusage(resource.RUSAGE_SELF), _most_mib(), time.monotonic()
    {**STEPS, **RUN_STEPS}[step](folder, count)
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    mib = _most_mib() - mib_before
    pipe.send({"step": step, "count": count, "seconds": seconds, "elapsed": time.monotonic() - start, "mib": mib})


def _most_mib() -> float:
    """The most memory that was resident, of this program."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(step: str, folder: Path, count: int) -> dict[str, Any]:
    """`step`, `count`, processor `seconds`, `elapsed` seconds, and `mib` of memory that the step added.

    Raises RuntimeError if it fails.
    """
    # Forks of a server that has imported everything: they start at once, and inherit nothing of this process.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__spec__.name])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(step, folder, count, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"{step} of {count:,} failed:\n{(folder / 'printed.txt').read_text()[-2000:]}") from None
    finally:
        process.join()


def text_of(rows: Sequence[dict[str, Any]]) -> str:
    """The tables, Markdown."""
    sizes = sorted({row["count"] for row in rows if row["step"] in STEPS})
    header = ["step", *(f"{size:,} images: s" for size in sizes), *(f"{size:,}: MiB" for size in sizes)]
    images = Table(header, [])
    by_step = {(row["step"], row["count"]): row for row in rows}
    for step in STEPS:
        found = [by_step.get((step, size)) for size in sizes]
        cells = ["–" if row is None else f"{row['seconds']:.2f}" for row in found]
        images.rows.append([step, *cells, *("–" if row is None else f"{row['mib']:,.0f}" for row in found)])
    runs = Table(["command", "runs", "processor (s)", "at most (s)", "MiB"], [])
    for row in rows:
        if row["step"] in RUN_STEPS:
            cells = [f"{row['count']:,}", f"{row['seconds']:.2f}", str(MOST_SECONDS[row["step"]]), f"{row['mib']:,.0f}"]
            runs.rows.append([row["step"], *cells])
    about = f"{describe_device(torch.device('cpu'))}; commit {git_commit()}, {date.today().isoformat()}."
    note = "Processor seconds, and memory that the step added to that of the imports."
    return f"{images.markdown()}\n{runs.markdown()}\n{note} {about}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=list(IMAGES), help="(default: 28740 287401)")
    parser.add_argument("--runs", type=int, default=1000, help="(default: 1000)")
    parser.add_argument("--out", type=Path, help="folder for scale.md and scale.json")
    options = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        total = len(options.images) * len(STEPS) + len(RUN_STEPS)
        with progress_bar(total=total, unit="step") as progress:
            for count in options.images:
                folder = Path(scratch) / str(count)
                folder.mkdir(exist_ok=True)
                for step in STEPS:
                    progress.set_description(f"{step}, {count:,}")
                    if step != "metrics and CSV of predictions" or count <= MOST_PREDICTIONS:
                        rows.append(measure(step, folder, count))
                    progress.update()
                shutil.rmtree(folder)
            make_runs(Path(scratch) / "outputs", options.runs)
            for step in RUN_STEPS:
                progress.set_description(step)
                rows.append(measure(step, Path(scratch), options.runs))
                progress.update()
    text = text_of(rows)
    print(text)
    if options.out:
        write_result(options.out, "scale", text, rows)


if __name__ == "__main__":
    main()
