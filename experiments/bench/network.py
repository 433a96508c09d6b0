"""Speed and memory, measured on this machine: `python -m experiments.bench.network [PART ...]`, or `make bench`.

What is compared runs in one process, warmed up, in turns; the fastest of at least five repeats counts (the medians are
in the JSON files). The reference follows the paper's text literally: Algorithm 1's loops over images and positions,
float32, contiguous maps, eager, one image at a time where it augments. Ten minutes on two cores, which should be idle
otherwise. Writes `outputs/bench/<part>.json` and `table.md`.
"""

import argparse
import functools
import io
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms import v2

from experiments.bench import measure
from experiments.bench.measure import BenchmarkResult, seconds_of, table
from experiments.bench.plain import algorithm_1
from experiments.bench.whole import bench_host, bench_plain, bench_sweep
from experiments.common import SPLITS, add_parts, make_parser, open_data, write_page
from fer_voting.config import compose
from fer_voting.data.augment import make_augment
from fer_voting.data.augment.batched import BatchedAugment
from fer_voting.data.augment.by_albumentations import AlbumentationsAugment
from fer_voting.data.images import prepare_image
from fer_voting.data.module import FERDataModule
from fer_voting.inference.onnx_export import export_float32, export_int8
from fer_voting.inference.runtime import FaceNetwork, Runtime
from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.models.compiled import compile_network, find_compiler
from fer_voting.models.cost import count_gmacs, forward_mib_per_image
from fer_voting.models.crops import ten_crops
from fer_voting.models.images import normalise
from fer_voting.networks import load_network
from fer_voting.networks.onnx import ExportInfo, OnnxRuntime, OpenVinoRuntime
from fer_voting.system.environment import keep_freed_memory, now
from fer_voting.system.messages import set_up_messages
from fer_voting.training.losses import CrossEntropy
from fer_voting.training.module import VotingModule, memory_format_for

Array = NDArray[Any]


class Reference(VotingResNet18):
    """The network with Algorithm 1 instead of its crop operation."""

    def crop(self, maps: Tensor) -> Tensor:
        return algorithm_1(maps)


@dataclass(frozen=True)
class Size:
    """Sizes of what is measured; those of `--quick` only show that the script runs."""

    width: int = 64
    image: int = 48
    batch: int = 32
    paper_batch: int = 135
    face_batch: int = 64
    matrix: int = 2048
    repeats: int = 5
    steps: int = 3


QUICK = Size(width=16, image=24, batch=2, paper_batch=4, face_batch=3, matrix=64, repeats=1, steps=2)


def _network(split: str, size: Size, memory: str = "paper") -> VotingResNet18:
    """The network in the memory format that training chooses."""
    net = VotingResNet18(split, width=size.width, memory=memory)
    return net.to(memory_format=memory_format_for(net))


def _images(count: int, size: Size) -> Tensor:
    """Random images `[count, 3, S, S]` in the memory format that training chooses for the widths of both sizes."""
    return torch.randn(count, 3, size.image, size.image).contiguous(memory_format=torch.channels_last)


def brief_training(
    data: FERDataModule, split: str, width: int, epochs: int, callback: L.Callback,
    accelerator: str = "cpu", compiled: bool = False, **trainer_options: Any,
) -> None:  # fmt: skip
    """Train in bfloat16 autocast on one device, without validation, checkpoints and trackers."""
    net = VotingResNet18(split, width=width)
    info = NetworkInfo(split, {"width": width}, data.class_names, data.size, data.name)
    module = VotingModule(net, CrossEntropy(), functools.partial(torch.optim.Adam, lr=2e-4, fused=True), info)
    if compiled:
        compile_network(net)
    trainer = L.Trainer(
        accelerator=accelerator, devices=1, precision="bf16-mixed", max_epochs=epochs, limit_val_batches=0,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[callback], log_every_n_steps=1, use_distributed_sampler=False, **trainer_options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)


def bench_crops(result: BenchmarkResult, size: Size, options: argparse.Namespace) -> None:
    """The crop operation, forward and backward, on the maps of each split."""
    for module, split, least in ((1, "m1", 2.5), (2, "m2", 4.0), (3, "m3", 4.0)):
        side, channels = size.image >> (module - 1), size.width << (module - 1)
        maps = torch.randn(size.batch, channels, side, side)
        gradient = torch.randn_like(algorithm_1(maps))
        functions = {
            f"{split} Algorithm 1": _forward_backward(algorithm_1, maps, gradient),
            f"{split} one operation": _forward_backward(
                lambda x: ten_crops(x).flatten(0, 1),
                *(x.contiguous(memory_format=torch.channels_last) for x in (maps, gradient)),
            ),
        }
        loop, operation = result.time(f"crops after {split}", functions, size.repeats).values()
        result.add(f"crops after {split}, forward + backward", loop / operation, "times faster", least=least)


def _forward_backward(operation: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> Callable[[], None]:
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()

    def run() -> None:
        x.grad = None
        operation(x).backward(gradient)

    return run


def _training_step(net: nn.Module, images: Tensor, fused: bool, bf16: bool) -> Callable[[], None]:
    optimizer = torch.optim.Adam(net.parameters(), 2e-4, fused=fused)
    targets = torch.arange(len(images)) % 7

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = CrossEntropy()(net(images), targets)
        loss.backward()
        optimizer.step()

    return step


def bench_training(result: BenchmarkResult, size: Size, options: argparse.Namespace) -> None:
    """A training step of each split, and how much of the processor's arithmetic it reaches."""
    images = torch.randn(size.batch, 3, size.image, size.image)
    functions: dict[str, Callable[[], Any]] = {}
    for split in SPLITS:
        functions[f"{split} reference"] = _training_step(Reference(split, width=size.width), images, False, False)
        for name, bf16 in (("float32", False), ("bf16", True)):
            functions[f"{split} {name}"] = _training_step(_network(split, size), _images(size.batch, size), True, bf16)
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(size.matrix, size.matrix, dtype=dtype) for _ in range(2))
        functions[f"product {name}"] = lambda a=a, b=b: a @ b  # type: ignore[misc]
    best = result.time("training steps", functions, size.repeats)
    most = {("m1", "float32"): 0.80, ("m1", "bf16"): 0.48}
    for split, name in itertools.product(SPLITS, ("float32", "bf16")):
        share = best[f"{split} {name}"] / best[f"{split} reference"]
        result.add(f"{split} training step, {name}, of the reference's time", share, most=most.get((split, name)))
    for name in ("float32", "bf16"):
        ratio = best[f"m1 {name}"] / best[f"baseline {name}"]
        result.add(f"m1's time an image over the baseline's, {name}", ratio, "times", most=5.4)
    for name in ("float32", "bf16"):
        product = 2 * size.matrix**3 / best[f"product {name}"]
        result.add(f"matrix product of {size.matrix}, {name}", product / 1e9, "GFLOP/s")
        for split in SPLITS:
            gmacs = count_gmacs(VotingResNet18(split, width=size.width), size.image)
            # The backward pass computes twice as much as the forward pass.
            reached = 3 * 2 * gmacs * 1e9 * size.batch / best[f"{split} {name}"]
            result.add(f"{split} training step, {name}, of the product's FLOP/s", 100 * reached / product, "%")


def settled(split: str, size: Size) -> tuple[VotingResNet18, NetworkInfo]:
    """A network of unnamed classes whose BatchNorm has the running statistics of its inputs, as after a training."""
    torch.manual_seed(0)
    net = VotingResNet18(split, width=size.width)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of all batches
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(size.batch, 3, size.image, size.image))
    names = tuple(map(str, range(net.num_classes)))
    return net.eval(), NetworkInfo(split, {"width": size.width}, names, size.image, "nothing")


def plain_pytorch(net: VotingResNet18) -> Callable[[Array], tuple[Array, Array]]:
    """uint8 faces to scores as the paper's words say it: float32, contiguous maps, eager, Algorithm 1's loops."""
    reference = Reference(net.split, net.num_classes, net.width)
    reference.load_state_dict(net.state_dict())
    network = FaceNetwork(reference).eval()

    @torch.inference_mode()
    def run(faces: Array) -> tuple[Array, Array]:
        scores, logits = network(torch.from_numpy(faces))
        return scores.numpy(), logits.numpy()

    return run


def exported(net: nn.Module, info: NetworkInfo, calibration: Array, folder: Path) -> dict[str, Runtime]:
    """The network in float32 and int8, whose accuracy is not of interest here, by each runtime."""
    about = ExportInfo(info.class_names, info.image_size, info.split, "soft", info.dataset, "")
    float32, int8 = folder / "float32.onnx", folder / "int8.onnx"
    export_float32(FaceNetwork(net), about, float32)
    export_int8(float32, int8, calibration, calibration[:1], np.zeros(1, np.int64))
    return {
        "ONNX Runtime, float32": OnnxRuntime(float32),
        "ONNX Runtime, int8": OnnxRuntime(int8),
        "OpenVINO, float32": OpenVinoRuntime(float32),
        "OpenVINO, bf16": OpenVinoRuntime(float32, precision="bf16"),
        "OpenVINO, int8": OpenVinoRuntime(int8),
    }


def bench_inference(result: BenchmarkResult, size: Size, options: argparse.Namespace) -> None:
    """Aligned faces, one and 64 at once, by exported files against plain PyTorch, and the error of their logits."""
    generator = np.random.default_rng(0)

    def faces(count: int, side: int) -> Array:
        return generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)

    splits = ["m1", "m3"]
    if size is QUICK:  # an export takes seconds at any size
        splits = ["m1"] if options.checkpoint is None else []
    networks = {split: settled(split, size) for split in splits}
    if options.checkpoint is not None:
        net, info = _trained(options.checkpoint)
        networks[f"{info.split} of width {info.options['width']}, trained on {info.dataset}"] = (net, info)
    for split, (net, info) in networks.items():
        many = faces(size.face_batch, info.image_size)
        with tempfile.TemporaryDirectory() as folder:
            exported_runs = exported(net, info, faces(4 * size.batch, info.image_size), Path(folder))
            runs: dict[str, Callable[[Array], Any]] = {"plain PyTorch": plain_pytorch(net), **exported_runs}
            for batch in (1, size.face_batch):
                rates = add_face_rates(result, split, runs, many[:batch], size)
                for name in exported_runs:
                    least = 3.0 if batch > 1 and name == "OpenVINO, int8" else None
                    what = f"{split}, aligned faces, {batch} at once, {name}"
                    result.add(what, rates[name] / rates["plain PyTorch"], "times faster", least=least)
            exact = exact_logits(net, many)
            for name, run in runs.items():
                add_error(result, f"{split}, {name}", run(many)[1], exact)


def add_face_rates(
    result: BenchmarkResult, split: str, runs: Mapping[str, Callable[[Array], Any]], faces: Array, size: Size
) -> dict[str, float]:
    """Aligned faces a second of each way to run a network, all at once."""
    count = len(faces)
    functions = {f"{split} {name} at {count}": functools.partial(run, faces) for name, run in runs.items()}
    best = result.time(f"{split}: {count:,} faces at once", functions, size.repeats)
    rates = {name: count / seconds for name, seconds in zip(runs, best.values(), strict=True)}
    for name, rate in rates.items():
        result.add(f"{split}, aligned faces, {count:,} at once, {name}", rate, "faces/s")
    return rates


@torch.no_grad()
def exact_logits(net: VotingResNet18, faces: Array) -> Array:
    """In float64, in which the network then is."""
    return net.double()(normalise(torch.from_numpy(faces).permute(0, 3, 1, 2)).double()).numpy()


def add_error(result: BenchmarkResult, what: str, logits: Array, exact: Array) -> None:
    error = float(np.linalg.norm(logits - exact) / np.linalg.norm(exact))
    most = 1e-5 if what.endswith("float32") else None
    result.add(f"{what}: relative error of the logits", error, most=most)


def _trained(checkpoint: Path) -> tuple[VotingResNet18, NetworkInfo]:
    """The network of a checkpoint. Raises ValueError if it is of another architecture than the reference."""
    trained = load_network(checkpoint)
    net, info = trained.net, trained.info
    if not isinstance(net, VotingResNet18):
        raise ValueError(f"--checkpoint: {checkpoint} holds a {type(net).__name__}, not a VotingResNet18")
    return net, info


def bench_trained(result: BenchmarkResult, size: Size, options: argparse.Namespace) -> None:
    """Accuracy and error of the logits of a trained network by precision, on the validation images of a data set."""
    if options.checkpoint is None:
        print("not measured; give --checkpoint FILE --data dataset=... dataset.root=DIR", file=sys.stderr)
        return
    net, info = _trained(options.checkpoint)
    data = open_packed(options.data)
    chosen = np.random.default_rng(0).permutation(data.positions("train"))[:512]
    positions = data.positions("val")
    faces, labels = data.pack.images[positions], data.class_ids(data.pack)[positions]
    batches = [faces[first : first + size.paper_batch] for first in range(0, len(faces), size.paper_batch)]
    with tempfile.TemporaryDirectory() as folder:
        runs = exported(net, info, data.pack.images[np.sort(chosen)], Path(folder))
        logits = {name: np.concatenate([run(batch)[1] for batch in batches]) for name, run in runs.items()}
    exact = np.concatenate([exact_logits(net, batch) for batch in batches])

    def accuracy(logits: Array) -> float:
        return 100 * float((logits.mean(axis=1).argmax(axis=1) == labels).mean())

    on = f"{info.split} of width {info.options['width']} on {data.name}'s {len(labels):,} validation images"
    result.add(f"{on}, float64: accuracy", accuracy(exact), "%")
    for name, each in logits.items():
        add_error(result, f"{on}, {name}", each, exact)
    for name, each in logits.items():
        most = 0.3 if name.endswith("int8") else None
        result.add(f"{on}, {name}: accuracy lost", accuracy(exact) - accuracy(each), "points", most=most)


def open_packed(overrides: list[str]) -> FERDataModule:
    """The data module of these overrides, packed, with the paper's augmentation."""
    data = open_data([*overrides, "augment=paper"])
    data.setup()
    return data


def _torchvision(values: Mapping[str, Any], size: int) -> Callable[[Tensor], Tensor]:
    """The paper's five steps by torchvision v2, one image at a time."""
    crop, color, move, turn, erase = (
        values[name] for name in ("resized_crop", "color_jitter", "translation", "rotation", "erase")
    )
    jitter = v2.ColorJitter(color["brightness"], color["contrast"], color["saturation"])
    steps = [
        v2.RandomApply([v2.RandomResizedCrop(size, crop["area"], crop["aspect"])], crop["probability"]),
        v2.RandomApply([jitter], color["probability"]),
        v2.RandomApply([v2.RandomAffine(0, (move["share"], move["share"]))], move["probability"]),
        v2.RandomApply([v2.RandomRotation(turn["degrees"])], turn["probability"]),
        v2.RandomErasing(erase["probability"], erase["area"], erase["aspect"]),
    ]
    return v2.Compose(steps)


def bench_input(result: BenchmarkResult, size: Size, options: argparse.Namespace) -> None:
    """Augmentation on one core, images read from files and from a pack, and the share of a step spent on waiting."""
    with tempfile.TemporaryDirectory() as folder:
        images = 3 * size.paper_batch
        sizes = [f"dataset.train_size={images}", "dataset.val_size=7", "dataset.test_size=7"]
        words = ["dataset=faces", *sizes, f"dataset.size={size.image}", f"output_dir={folder}"]
        data = open_packed([*words, f"dataset.batch_size={size.paper_batch}"])
        positions = data.positions("train")[: size.paper_batch]
        _bench_augmentation(result, data.pack.images[positions], size)
        _bench_reading(result, data, positions, Path(folder), size)
        for split in ("m1", "baseline"):
            clock = Clock()
            brief_training(data, split, size.width, size.steps, clock)
            what = f"waiting for data: {split}, bf16, batch {size.paper_batch}, from a pack, of a step"
            result.add(what, 100 * clock.share_between_steps, "%", most=1.0)


def _bench_augmentation(result: BenchmarkResult, pictures_BHWC: Array, size: Size) -> None:
    values = {k: v for k, v in compose([]).augment.items() if not isinstance(v, str)}
    by_image, by_batch = make_augment("albumentations", **values), make_augment("batched", **values)
    by_torchvision = _torchvision(values, size.image)
    pictures = torch.from_numpy(pictures_BHWC).permute(0, 3, 1, 2).contiguous()
    positions = torch.arange(len(pictures))
    keys = [(0, position) for position in range(len(pictures))]
    assert isinstance(by_image, AlbumentationsAugment)
    assert isinstance(by_batch, BatchedAugment)
    functions: dict[str, Callable[[], Any]] = {
        "albumentations": lambda: by_image(pictures_BHWC, keys, 0),
        "torchvision v2": lambda: [by_torchvision(picture) for picture in pictures],
        "batched": lambda: by_batch(pictures, 0, positions, 0),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = result.time("augmentation", functions, size.repeats)
    torch.set_num_threads(threads)
    for name, seconds in best.items():
        result.add(f"augmentation on one core, {name}", len(pictures) / seconds, "images/s")
    for name, least in (("albumentations", 4), ("torchvision v2", 8)):
        ratio = best[name] / best["batched"]
        result.add(f"batched augmentation against {name}", ratio, "times faster", least=least)


def _bench_reading(result: BenchmarkResult, data: FERDataModule, positions: Array, folder: Path, size: Size) -> None:
    files = []
    for number, position in enumerate(positions):
        files.append(folder / f"{number}.jpg")
        PIL.Image.fromarray(data.pack.images[position]).resize((100, 100)).save(files[-1], quality=90)

    def read(file: Path) -> Array:
        with PIL.Image.open(io.BytesIO(file.read_bytes())) as picture:
            return prepare_image(picture, size.image)

    functions: dict[str, Callable[[], Any]] = {
        "JPEG files of 100 pixels": lambda: torch.from_numpy(np.stack([read(file) for file in files])),
        "pack": lambda: torch.from_numpy(data.pack.images[positions]),
    }
    best = result.time("reading", functions, size.repeats)
    for name, seconds in best.items():
        result.add(f"reading from {name}", len(positions) / seconds, "images/s")


class Clock(L.Callback):
    """Records when a step has its batch on the device, ready for the network, and when it ends."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.ended: list[float] = []

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.begun.append(now(trainer.strategy.root_device))

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.ended.append(now(trainer.strategy.root_device))

    @property
    def share_between_steps(self) -> float:
        """Share of the time from the end of the first step to the end of the last that is between steps."""
        between = sum(begun - ended for ended, begun in zip(self.ended, self.begun[1:], strict=False))
        return between / (self.ended[-1] - self.ended[0])


def bench_compile(result: BenchmarkResult, size: Size, options: argparse.Namespace) -> None:
    """Time of a training step of m1 with `compile=true`, and of the first one, which compiles."""
    if find_compiler() is None:
        print("not measured: there is no C++ compiler here", file=sys.stderr)
        return
    nets = [_network("m1", size) for _ in range(2)]
    compile_network(nets[1])
    images = _images(size.batch, size)
    steps = [_training_step(net, images, True, True) for net in nets]
    functions = dict(zip(("eager", "compiled"), steps, strict=True))
    with tempfile.TemporaryDirectory() as folder:  # without the cache of an earlier run
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        first = seconds_of(functions["compiled"], 1)
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]
    result.add("m1 training step, bf16, compiled: the first", first, "s")
    best = result.time("compiled steps", functions, size.repeats)
    result.add("m1 training step, bf16, compiled, of the eager time", best["compiled"] / best["eager"])


def bench_memory(result: BenchmarkResult, size: Size, options: argparse.Namespace) -> None:
    """MiB that a training's forward pass leaves allocated, and the time of a step."""
    functions = {}
    for memory, mosts in (("paper", (None, None)), ("lean", (20.0, 10.0))):
        net = _network("m1", size, memory)
        for name, bf16, most in (("float32", False, mosts[0]), ("bf16", True, mosts[1])):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                mib = forward_mib_per_image(net, _images(size.paper_batch, size))
            result.add(f"forward memory of m1, {memory}, {name}", mib, "MiB an image", most=most)
        functions[f"{memory} step"] = _training_step(net, _images(size.batch, size), True, True)
    best = result.time("lean steps", functions, size.repeats)
    result.add("m1 training step, bf16, lean, of paper's time", best["lean step"] / best["paper step"])


PARTS: dict[str, Callable[[BenchmarkResult, Size, argparse.Namespace], None]] = {
    "crops": bench_crops,
    "training": bench_training,
    "inference": bench_inference,
    "trained": bench_trained,
    "input": bench_input,
    "memory": bench_memory,
    "compile": bench_compile,
    "sweep": bench_sweep,
    "host": bench_host,
    "plain": bench_plain,
}


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    add_parts(parser, PARTS)
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    parser.add_argument("--checkpoint", type=Path, help="a trained network, for `inference` and `trained`")
    parser.add_argument("--data", nargs="+", default=[], help="the evaluation data: dataset=fer2013 dataset.root=DIR")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, the figures mean nothing")
    options = parser.parse_args(arguments)
    if options.checkpoint is not None and not options.checkpoint.is_file():
        parser.error(f"--checkpoint: {options.checkpoint} is not a file")
    set_up_messages()
    keep_freed_memory()
    torch.manual_seed(0)
    environment = measure.measured_here(seed=0, quick=options.quick)
    for name in options.parts or PARTS:
        print(f"{name}: {(PARTS[name].__doc__ or '').splitlines()[0]}", file=sys.stderr)
        result = BenchmarkResult()
        PARTS[name](result, QUICK if options.quick else Size(), options)
        medians = {what: statistics.median(seconds) for what, seconds in result.seconds.items()}
        path = options.out / f"{name}.json"
        measure.write_part(path, environment, result.rows, seconds=result.seconds, median_seconds=medians)
        print(table(result.rows).markdown() if result.rows else "", flush=True)
    write_all_parts(options.out)
    print(f"Written to {options.out}")


def write_all_parts(out: Path) -> None:
    """Write the table of all parts measured into this folder, with the machine and the date."""
    parts = measure.read_parts(out, PARTS).values()
    origin = "{device}; commit {git_commit}; {date}; seed {seed}"
    origins = dict.fromkeys(origin.format_map(part["environment"]) for part in parts)
    note = " Quick sizes: the figures mean nothing." if any(part["environment"]["quick"] for part in parts) else ""
    rows = table([row for part in parts for row in part["rows"]])
    text = f"{rows.markdown()}\n{'; '.join(origins)}; torch {torch.__version__}.{note}\n"
    write_page(out / "table.md", text, [("measured", rows)])


if __name__ == "__main__":
    main()
