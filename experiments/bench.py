"""How fast and how lean: `python -m experiments.bench`, or `make bench`; about eight minutes on two CPU cores.

Each part compares, in this one process and taking turns, a plain reference with what the project does: the reference
is the paper's pseudo-code as it stands, Algorithm 1's loop over images and positions in a network that runs eagerly
in float32 with NCHW maps. After a warm-up, the fastest of several rounds counts, which a busy machine disturbs least;
medians stand beside it. Memory once got from the system is kept: page faults would swamp all else.

`--run DIR`, the folder of a finished run, judges inference by its network and its data set; without one a network is
trained for half a minute on drawn faces.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tqdm import tqdm

from fer_voting.checkpoint import load_weights
from fer_voting.config import compose_config
from fer_voting.data.augment import Augment
from fer_voting.data.augment_batched import BatchedAugment
from fer_voting.data.base import FERDataModule, make_datamodule, normalise
from fer_voting.data.resident import ResidentImages, load
from fer_voting.data.sampling import EpochSampler
from fer_voting.environment import describe_device, git_commit, package_versions
from fer_voting.files import write_json
from fer_voting.inference import PRECISIONS, prepare
from fer_voting.models import VotingResNet18
from fer_voting.models.cost import count_gmacs, forward_mib_per_image
from fer_voting.models.crops import crop_corners, ten_crops
from fer_voting.module import crop_cross_entropy
from fer_voting.tables.text import Table, markdown
from fer_voting.voting import soft_vote

IMAGE_SIZE = 48
BATCH = 32
AUGMENT_BATCH = 135  # the paper's
TRAINED_SPLITS = ("baseline", "m1", "m2", "m3")
MATRIX_SIDE = 2048
PASSES_OF_A_STEP = 3  # forward, gradient of the maps, gradient of the weights

Variants = dict[str, Callable[[], object]]


# The plain reference ----------------------------------------------------------------------------------------------


def algorithm1(x: Tensor) -> Tensor:
    """Algorithm 1 of the paper, line by line: `[B, C, H, W]` -> `[B * 10, C, h, w]`."""
    patches = []
    for image in x:
        height, width = image.shape[-2:]
        h, w = height * 5 // 6, width * 5 // 6
        for top, left in crop_corners(height, width, h, w):
            patches.append(image[None, :, top : top + h, left : left + w])
        mirrored = image.flip(-1)
        for top, left in crop_corners(height, width, h, w):
            patches.append(mirrored[None, :, top : top + h, left : left + w])
    return torch.cat(patches, dim=0)


class PlainNetwork(VotingResNet18):
    """The network with Algorithm 1 in it."""

    def _crop(self, x: Tensor) -> Tensor:
        return algorithm1(x)


# Measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure and what it should be."""

    part: str
    what: str
    figure: float
    unit: str
    target: float | None = None
    at_most: bool = True
    min_ms: float | None = None
    median_ms: float | None = None
    reference_min_ms: float | None = None
    reference_median_ms: float | None = None
    remark: str = ""

    @property
    def reached(self) -> bool | None:
        if self.target is None:
            return None
        return self.figure <= self.target if self.at_most else self.figure >= self.target


@dataclass(frozen=True)
class Times:
    """Seconds of each round."""

    rounds: list[float]

    @property
    def fastest(self) -> float:
        return min(self.rounds)

    def against(self, reference: Times) -> dict[str, float]:
        """The times that a row shows."""
        return {
            "min_ms": 1e3 * self.fastest,
            "median_ms": 1e3 * statistics.median(self.rounds),
            "reference_min_ms": 1e3 * reference.fastest,
            "reference_median_ms": 1e3 * statistics.median(reference.rounds),
        }


def take_turns(part: str, variants: Variants, rounds: int) -> dict[str, Times]:
    """Time `variants` in turn, `rounds` times after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    with tqdm(total=(rounds + 1) * len(variants), desc=part, unit="run") as progress:
        for turn in range(rounds + 1):
            for name, run in variants.items():
                progress.set_postfix_str(name)
                start = time.perf_counter()
                run()
                if turn > 0:
                    seconds[name].append(time.perf_counter() - start)
                progress.update()
    return {name: Times(rounds) for name, rounds in seconds.items()}


def faster(part: str, what: str, ours: Times, reference: Times, target: float | None, remark: str = "") -> Row:
    """How many times faster than the reference, at least `target`."""
    figure = reference.fastest / ours.fastest
    return Row(part, what, figure, "x", target, False, **ours.against(reference), remark=remark)


def share(part: str, what: str, ours: Times, reference: Times, target: float | None, remark: str = "") -> Row:
    """Which share of the reference's time, at most `target`."""
    figure = ours.fastest / reference.fastest
    return Row(part, what, figure, "of the time", target, **ours.against(reference), remark=remark)


def keep_memory() -> None:
    """Have glibc keep freed memory instead of giving it back and faulting it in again, page by page."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        m_trim_threshold, m_mmap_max = -1, -4
        ctypes.CDLL(None).mallopt(m_mmap_max, 0)
        ctypes.CDLL(None).mallopt(m_trim_threshold, 2**31 - 1)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def random_images(count: int) -> Tensor:
    return torch.randn(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


# The parts --------------------------------------------------------------------------------------------------------


def bench_crops(options: Options) -> Iterator[Row]:
    def forward_and_backward(crop: Callable[[Tensor], Tensor], x: Tensor) -> None:
        crops = crop(x)
        crops.backward(torch.ones_like(crops))
        x.grad = None

    targets = {"m1": 2.5, "m2": 4.0, "m3": 4.0}
    for split, (channels, side) in {"m1": (64, 48), "m2": (128, 24), "m3": (256, 12)}.items():
        x = torch.randn(BATCH, channels, side, side)
        variants: Variants = {
            "Algorithm 1": partial(forward_and_backward, algorithm1, x.clone().requires_grad_()),
            "ours": partial(forward_and_backward, ten_crops, channels_last(x).requires_grad_()),
            "bf16": partial(forward_and_backward, ten_crops, channels_last(x).bfloat16().requires_grad_()),
        }
        times = take_turns(f"crops of {split}", variants, 4 * options.rounds)
        yield faster("crops", f"{split}, forward and backward", times["ours"], times["Algorithm 1"], targets[split])
        yield faster("crops", f"{split}, in bf16", times["bf16"], times["Algorithm 1"], None)


def training_step(net: nn.Module, precision: str, images: Tensor, fused: bool) -> Callable[[], object]:
    labels = torch.arange(len(images)) % 7
    optimizer = torch.optim.Adam(net.parameters(), 2e-4, fused=fused)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = crop_cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def bench_training(options: Options) -> Iterator[Row]:
    images = random_images(options.batch)
    matrices = {dtype: torch.randn(MATRIX_SIDE, MATRIX_SIDE).to(dtype) for dtype in (torch.float32, torch.bfloat16)}
    variants: Variants = {
        "matrix product, float32": lambda: matrices[torch.float32] @ matrices[torch.float32],
        "matrix product, bf16": lambda: matrices[torch.bfloat16] @ matrices[torch.bfloat16],
    }
    for split in TRAINED_SPLITS:
        plain = PlainNetwork(split, width=options.width)
        net = VotingResNet18(split, width=options.width).to(memory_format=torch.channels_last)
        variants[f"{split}, plain"] = training_step(plain, "float32", images, fused=False)
        for precision in ("float32", "bf16"):
            variants[f"{split}, {precision}"] = training_step(net, precision, channels_last(images), fused=True)
    lean = VotingResNet18("m1", width=options.width, memory="lean").to(memory_format=torch.channels_last)
    variants["m1, float32, lean"] = training_step(lean, "float32", channels_last(images), fused=True)
    times = take_turns("training steps", variants, options.rounds)

    product_gflops = {p: 2e-9 * MATRIX_SIDE**3 / times[f"matrix product, {p}"].fastest for p in ("float32", "bf16")}
    for precision, gflops in product_gflops.items():
        yield Row("training", f"matrix product of {MATRIX_SIDE}², {precision}", gflops, "GFLOP/s")
    targets = {"m1, float32": 0.80, "m1, bf16": 0.48}
    for split in TRAINED_SPLITS:
        step_gflop = 2 * PASSES_OF_A_STEP * count_gmacs(PlainNetwork(split, width=options.width), IMAGE_SIZE)
        for name in (f"{split}, float32", f"{split}, bf16", f"{split}, float32, lean"):
            if name in times:
                gflops = options.batch * step_gflop / times[name].fastest
                peak = product_gflops["bf16" if "bf16" in name else "float32"]
                remark = f"{gflops:.0f} GFLOP/s, {gflops / peak:.0%} of the matrix product's"
                yield share("training", f"{name}", times[name], times[f"{split}, plain"], targets.get(name), remark)
    m1, baseline = times["m1, float32"], times["baseline, float32"]
    figure = m1.fastest / baseline.fastest
    yield Row("training", "m1's step over the baseline's", figure, "x", 5.4, remark="5.31 in arithmetic")


def bench_inference(options: Options) -> Iterator[Row]:
    plain = PlainNetwork("m1", width=options.width).eval()
    calibration = random_images(CALIBRATION_IMAGES)
    targets = {"float32": 1.2, "bf16": 2.2, "int8": 3.3}
    for batch in (1, BATCH):
        images = random_images(batch)
        variants: Variants = {"plain": torch.inference_mode()(partial(plain, images))}
        for precision in PRECISIONS:
            variants[precision] = partial(prepare(plain, precision, calibration), images)
        times = take_turns(f"inference, batch {batch}", variants, options.rounds if batch > 1 else 4 * options.rounds)
        for precision in PRECISIONS:
            target = targets[precision] if batch == BATCH else None
            yield faster("inference", f"m1, {precision}, batch {batch}", times[precision], times["plain"], target)

    judged = open_judged(options.run) if options.run else train_briefly(options)
    net, images, labels = judged.net, judged.images, judged.labels
    with torch.inference_mode():
        logits = torch.cat([net(part) for part in images.split(AUGMENT_BATCH)])
    accuracy = (soft_vote(logits).argmax(1) == labels).float().mean().item()
    limits = {"float32": 1e-6, "bf16": 5e-3}
    for precision in PRECISIONS:
        run = prepare(net, precision, judged.calibration)
        ours = torch.cat([run(part) for part in images.split(AUGMENT_BATCH)])
        error = ((ours - logits).norm() / logits.norm()).item()
        lost = 100 * (accuracy - (soft_vote(ours).argmax(1) == labels).float().mean().item())
        yield Row("inference", f"{precision}, error", error, "of the logits", limits.get(precision), remark=judged.name)
        limit = 0.3 if precision == "int8" else None
        remark = f"of {100 * accuracy:.2f} %, {len(labels):,} images"
        yield Row("inference", f"{precision}, accuracy lost", lost, "points", limit, remark=remark)


def bench_input(options: Options) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, one_thread():
        datamodule = drawn_faces(Path(folder), train_size=540)
        images_BHWC = np.ascontiguousarray(datamodule.pack.images[:AUGMENT_BATCH])
        yield from bench_augmentation(options, images_BHWC)
        yield from bench_reading(options, datamodule, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        yield from bench_waiting(options, drawn_faces(Path(folder), train_size=540))


def bench_augmentation(options: Options, images_BHWC: NDArray[np.uint8]) -> Iterator[Row]:
    steps = {name: values for name, values in compose_config(["augment=paper"]).augment.items() if name in STEPS}
    images = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2)
    keys = [(0, position) for position in range(len(images))]
    albumentations, batched, one_by_one = Augment(**steps), BatchedAugment(**steps), torchvision_augment(**steps)
    variants: Variants = {
        "albumentations": lambda: normalise(torch.from_numpy(albumentations(images_BHWC, keys, 0)).permute(0, 3, 1, 2)),
        "torchvision": lambda: normalise(torch.stack([one_by_one(image) for image in images])),
        "batched": lambda: normalise(batched(images, keys, 0)),
    }
    times = take_turns("augmentation", variants, 2 * options.rounds)
    for name, target in (("albumentations", 4.0), ("torchvision", 8.0)):
        remark = f"{len(images) / times['batched'].fastest:,.0f} images/s a core against "
        remark += f"{len(images) / times[name].fastest:,.0f}"
        yield faster("input", f"batched augmentation against {name}", times["batched"], times[name], target, remark)


STEPS = ("resized_crop", "color_jitter", "translation", "rotation", "erase")


def torchvision_augment(
    resized_crop: Any, color_jitter: Any, translation: Any, rotation: Any, erase: Any
) -> Callable[[Tensor], Tensor]:
    """The same steps by torchvision, an image at a time, as its data sets do."""
    jitter = {name: value for name, value in color_jitter.items() if name != "probability"}
    crop = v2.RandomResizedCrop(IMAGE_SIZE, tuple(resized_crop["area"]), tuple(resized_crop["aspect"]))
    move = v2.RandomAffine(0, (translation["share"], translation["share"]))
    turn = v2.RandomRotation(rotation["degrees"], v2.InterpolationMode.BILINEAR)
    return v2.Compose(
        [
            v2.RandomApply([crop], resized_crop["probability"]),
            v2.RandomApply([v2.ColorJitter(**jitter)], color_jitter["probability"]),
            v2.RandomApply([move], translation["probability"]),
            v2.RandomApply([turn], rotation["probability"]),
            v2.RandomErasing(erase["probability"], tuple(erase["area"]), tuple(erase["aspect"])),
        ]
    )


def bench_reading(options: Options, datamodule: FERDataModule, folder: Path) -> Iterator[Row]:
    pack = datamodule.pack
    positions = datamodule.positions("train")[:AUGMENT_BATCH]
    paths = [folder / f"{position}.jpg" for position in positions]
    for path, position in zip(paths, positions, strict=True):
        picture = PIL.Image.fromarray(pack.images[position]).resize((100, 100))  # RAF-DB's size
        picture.save(path, quality=95)

    def read_jpegs() -> NDArray[Any]:
        pictures = (PIL.Image.open(path).convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE)) for path in paths)
        return np.stack([np.asarray(picture) for picture in pictures])

    times = take_turns("reading", {"jpeg": read_jpegs, "pack": lambda: pack.images[positions]}, 2 * options.rounds)
    remark = f"{len(paths) / times['pack'].fastest:,.0f} images/s against {len(paths) / times['jpeg'].fastest:,.0f}"
    yield faster("input", "reading from a pack against JPEG files", times["pack"], times["jpeg"], None, remark)


def bench_waiting(options: Options, datamodule: FERDataModule) -> Iterator[Row]:
    """Batches from the pack, changed and normalised, each followed by a step on it."""
    steps = {name: values for name, values in compose_config(["augment=paper"]).augment.items() if name in STEPS}
    pack, positions = datamodule.pack, datamodule.positions("train")
    dataset = ResidentImages(load(pack, torch.device("cpu")), pack.label_ids, BatchedAugment(**steps), seed=0)
    sampler = EpochSampler(positions, pack.label_ids[positions], batch_size=options.batch, seed=0, target=None)
    loader = DataLoader(dataset, batch_size=None, sampler=sampler)

    def batches() -> Iterator[Tensor]:
        while True:
            yield from (channels_last(normalise(images)) for images, _, _ in loader)

    for split in ("m1", "baseline"):
        net = VotingResNet18(split, width=options.width).to(memory_format=torch.channels_last)
        source = batches()
        images = next(source)
        step = training_step(net, "bf16", images, fused=True)
        times = take_turns(f"waiting of {split}", {"data": lambda: images.copy_(next(source)), "step": step}, 6)
        data, total = statistics.median(times["data"].rounds), statistics.median(times["step"].rounds)
        figure = 100 * data / (data + total)
        remark = f"{1e3 * data:.1f} ms of {1e3 * (data + total):.0f} ms"
        what = f"{split} in bf16 waits for data"
        yield Row("input", what, figure, "% of the step", 1.0, remark=remark)


def bench_memory(options: Options) -> Iterator[Row]:
    images = channels_last(random_images(options.batch))
    targets = {("lean", "float32"): 20.0, ("lean", "bf16"): 10.0}
    for memory in ("paper", "lean"):
        net = VotingResNet18("m1", width=options.width, memory=memory).to(memory_format=torch.channels_last)
        for precision in ("float32", "bf16"):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                mib = forward_mib_per_image(net, images)
            remark = "40.34 in the paper" if (memory, precision) == ("paper", "float32") else ""
            what = f"m1, {memory}, {precision}, batch {options.batch}"
            yield Row("memory", what, mib, "MiB an image", targets.get((memory, precision)), remark=remark)


# Networks and pictures --------------------------------------------------------------------------------------------


CALIBRATION_IMAGES = 256


@dataclass(frozen=True)
class Judged:
    """A trained network and the images on which its faster forms are judged."""

    name: str
    net: VotingResNet18
    images: Tensor
    labels: Tensor
    calibration: Tensor


def judged_by(datamodule: FERDataModule, net: VotingResNet18, name: str) -> Judged:
    """On the validation images; calibrated on some of the training images."""

    def images(positions: NDArray[np.int64]) -> Tensor:
        return normalise(torch.from_numpy(datamodule.pack.images[positions]).permute(0, 3, 1, 2))

    calibration = np.random.default_rng(0).permutation(datamodule.positions("train"))[:CALIBRATION_IMAGES]
    labels = torch.from_numpy(datamodule.class_ids(datamodule.pack)[datamodule.positions("val")])
    return Judged(name, net.eval(), images(datamodule.positions("val")), labels, images(calibration))


def open_judged(run: Path) -> Judged:
    """A finished run's network of the soft vote."""
    state, record = load_weights(run / "checkpoints" / "best-soft.ckpt")
    net = VotingResNet18(record.split, len(record.class_names), record.width)
    net.load_state_dict(state)
    dataset = OmegaConf.to_container(OmegaConf.load(run / "config.yaml").dataset, resolve=False)
    datamodule = make_datamodule(dataset, augment=None)
    datamodule.setup()
    return judged_by(datamodule, net, f"{run.name}, {record.dataset}'s validation images")


def train_briefly(options: Options) -> Judged:
    """A narrow m1 that has seen some drawn faces."""
    with tempfile.TemporaryDirectory() as folder:
        datamodule = drawn_faces(Path(folder), train_size=1500)
        pack = datamodule.pack
        net = VotingResNet18("m1", width=16).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(net.parameters(), 2e-3, fused=True)
        positions = datamodule.positions("train")
        for batch in tqdm(np.array_split(positions, len(positions) // BATCH), desc="training", unit="step"):
            images = normalise(torch.from_numpy(pack.images[batch]).permute(0, 3, 1, 2))
            loss = crop_cross_entropy(net(images), torch.from_numpy(datamodule.class_ids(pack)[batch]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return judged_by(datamodule, net, "trained here on drawn faces")


def drawn_faces(folder: Path, train_size: int) -> FERDataModule:
    dataset = compose_config(["dataset=faces"]).dataset
    sizes = {"train_size": train_size, "val_size": 700, "test_size": 7}
    datamodule = make_datamodule(dataset, **sizes, cache_dir=folder, augment=None)
    datamodule.setup()
    return datamodule


# The command ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    rounds: int = 5
    batch: int = BATCH
    width: int = 64
    run: Path | None = None


PARTS: dict[str, Callable[[Options], Iterator[Row]]] = {
    "crops": bench_crops,
    "inference": bench_inference,
    "input": bench_input,
    "memory": bench_memory,
    "training": bench_training,
}


def table(rows: list[Row]) -> str:
    def number(value: float | None, digits: int = 3) -> str:
        return "" if value is None else f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"

    cells = []
    for row in rows:
        target = "" if row.target is None else f"{'≤' if row.at_most else '≥'} {number(row.target)}"
        verdict = {None: "", True: "yes", False: "NO"}[row.reached]
        milliseconds = [number(value, 4) for value in (row.min_ms, row.median_ms, row.reference_min_ms)]
        cells.append(
            [row.part, row.what, row.remark, f"{number(row.figure)} {row.unit}", target, verdict, *milliseconds]
        )
    header = ["part", "what", "remark", "figure", "target", "reached", "ms", "median", "reference"]
    return markdown(Table(header, cells, left=3))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How fast and how lean, against a plain reference.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=Options.rounds, help="after the warm-up (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=BATCH, help="of training steps (default: %(default)s)")
    parser.add_argument("--width", type=int, default=Options.width, help="of the network (default: %(default)s)")
    parser.add_argument("--run", type=Path, help="folder of a finished run, whose network inference is judged by")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/bench"))
    given = parser.parse_args(arguments)
    options = Options(given.rounds, given.batch_size, given.width, given.run)

    keep_memory()
    where = {"device": describe_device(torch.device("cpu")), "commit": git_commit(), "versions": package_versions()}
    all_rows = []
    for part in given.parts:
        rows = list(PARTS[part](options))
        all_rows += rows
        content = [asdict(row) | {"reached": row.reached} for row in rows]
        write_json(given.output_dir / f"{part}.json", {**where, "rounds": options.rounds, "rows": content})
    missed = [f"{row.part}: {row.what}" for row in all_rows if row.reached is False]
    print(f"{where['device']}; the fastest of {options.rounds} rounds or more\n\n{table(all_rows)}")
    print(f"Not reached: {'; '.join(missed)}" if missed else "Every target is reached.")
    print(f"Written to {given.output_dir}")


if __name__ == "__main__":
    main()
