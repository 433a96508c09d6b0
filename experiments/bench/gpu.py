"""Everything that needs a GPU, in one command: `python -m experiments.bench.gpu --root DIR`, DIR with FER2013.

1. `tests`: the tests that are skipped without a GPU. If one fails, the command ends.
2. `speed`: training steps of every split in bfloat16, augmentation included, from a pack on the GPU: images a second,
   the share of a step that waits for data, and the share of an H100's dense 989 TFLOP/s; as torch chooses its
   algorithms, with deterministic ones (the default of a training), with the fastest of these, and compiled.
3. `prediction`: aligned faces a second by PyTorch on the GPU, one and 1,024 at once, copied there and back.
4. `memory`: Table 2 by `torch.cuda.memory_allocated`.
5. `training`: the four splits on FER2013 at full width (`experiment=fer2013_full`), seeds 0, 1, 2, and what their
   predictions say (`experiments.fer2013_analysis`).

Figures are written into `OUT/gpu` after every case, what the training says into `OUT/fer2013_full`.
Each part can be run by itself; the training continues where it was stopped.
`--quick` shows on any machine that it runs: drawn faces, tiny sizes, figures that mean nothing.
"""

import argparse
import copy
import tempfile
from pathlib import Path

import numpy as np
import torch

from experiments import fer2013_analysis, table2
from experiments.bench.measure import BenchmarkResult, Row, measured_here, table, write_part
from experiments.bench.network import QUICK as QUICK_SIZE
from experiments.bench.network import Clock, Size, add_face_rates, brief_training, open_packed, settled
from experiments.common import REPO, SPLITS, add_parts, make_parser, run_module, write_page
from fer_voting.config import compose
from fer_voting.experiment import train
from fer_voting.inference.runtime import PRECISIONS, TorchRuntime
from fer_voting.models import VotingResNet18
from fer_voting.models.cost import count_gmacs
from fer_voting.system.environment import keep_freed_memory
from fer_voting.system.messages import progress_bar, set_up_messages
from fer_voting.training.callbacks import Throughput

H100_TFLOPS = 989
"""Dense bfloat16 of an H100 SXM, by its data sheet."""
TARGETS = {"baseline": 40_000.0, "m1": 7_500.0, "m2": 10_000.0, "m3": 16_000.0}
"""Images a second on an H100 at batch 1,024."""
QUICK = ["dataset=faces", "dataset.train_size=28", "dataset.val_size=7", "dataset.test_size=7", "dataset.size=24"]


def tests(options: argparse.Namespace) -> None:
    """Run the tests marked `gpu`, which stand in one file; one that fails ends the command."""
    run_module("pytest", "-rs", str(REPO / "tests/test_on_gpu.py"))


MODES: dict[str, dict[str, bool]] = {
    "": {},
    ", deterministic": {"deterministic": True},
    ", deterministic, benchmark": {"deterministic": True, "benchmark": True},
    ", compiled": {"compiled": True},
}
"""Name of a way to train -> options of `brief_training`. `fer_voting.train` is deterministic by default."""


def measure(words: list[str], split: str, batch_size: int, mode: str, width: int, epochs: int) -> list[Row]:
    """Rows of one training: its rate, and from a second one, which waits for the device at every step, its waiting."""
    name = f"{split}, batch {batch_size:,}{mode}"
    found = {}
    for callback in (Throughput(), Clock()):
        data = open_packed([*words, f"dataset.batch_size={batch_size}"])
        brief_training(data, split, width, epochs, callback, "auto", **MODES[mode])
        found[type(callback)] = callback
    rate, waiting = found[Throughput].images_per_second, found[Clock].share_between_steps  # type: ignore[union-attr]
    assert rate is not None
    gmacs = count_gmacs(VotingResNet18(split, width=width), data.size)
    share = 3 * 2 * gmacs * rate / 1e3 / H100_TFLOPS  # the backward pass computes twice as much as the forward pass
    bounded = batch_size == 1024 and not mode
    return [
        Row(f"training {name}", rate, "images/s", least=TARGETS[split] if bounded else None),
        Row(f"training {name}: of 989 TFLOP/s", 100 * share, "%"),
        Row(f"training {name}: waiting for data, of a step", 100 * waiting, "%", most=3.0 if bounded else None),
    ]


def speed(options: argparse.Namespace) -> None:
    """Measure training steps, all splits in one mode before the next; writes `speed.json` and `speed.md`."""
    quick = options.quick
    words = QUICK if quick else ["dataset=fer2013", f"dataset.root='{options.root}'"]
    cases = [
        (split, batch_size, mode)
        for mode in (MODES if not quick else [", deterministic"])
        for batch_size in ((1024, 135) if not quick else (7,))
        for split in (SPLITS if not quick else ("m1",))
    ]
    rows = []
    with tempfile.TemporaryDirectory() as packs:  # of drawn faces, which nobody needs again
        words = [*words, f"output_dir={packs if quick else 'outputs'}"]
        for split, batch_size, mode in progress_bar(cases, desc="training steps", unit="case"):
            rows += measure(words, split, batch_size, mode, *((16, 2) if quick else (64, 3)))
            write(rows, options, "speed")


def prediction(options: argparse.Namespace) -> None:
    """Measure `TorchRuntime`, which `predict` runs; writes `prediction.json` and `prediction.md`."""
    result = BenchmarkResult()
    size = QUICK_SIZE if options.quick else Size()
    for split in progress_bar(SPLITS if not options.quick else ("m1",), desc="prediction", unit="split"):
        net, info = settled(split, size)
        runtimes = {name: TorchRuntime(copy.deepcopy(net), info, precision=name) for name in PRECISIONS}
        for count in (1, 1024) if not options.quick else (3,):
            faces = np.random.default_rng(0).integers(0, 256, (count, size.image, size.image, 3), dtype=np.uint8)
            add_face_rates(result, split, runtimes, faces, size)
        write(result.rows, options, "prediction")


def write(rows: list[Row], options: argparse.Namespace, name: str) -> None:
    """Write `NAME.json` and the table `NAME.md`, with where and when."""
    environment = measured_here("cuda" if torch.cuda.is_available() else "cpu", quick=options.quick)
    write_part(options.out / "gpu" / f"{name}.json", environment, rows)
    origin = "{device}; commit {git_commit}; {date}.".format_map(environment)
    of_rows = table(rows)
    write_page(options.out / "gpu" / f"{name}.md", f"{of_rows.markdown()}\n{origin}\n", [(name, of_rows)])


def memory(options: argparse.Namespace) -> None:
    """Measure Table 2; writes `table2.json` and `table2.md`."""
    table2.main(["--output-dir", str(options.out / "gpu"), *(["--batch-size", "2"] if options.quick else [])])


def training(options: argparse.Namespace) -> None:
    """Train the splits; writes what `experiments.fer2013_analysis` writes, which for drawn faces is nothing."""
    if options.quick:
        tiny = ["split=m3", "model.width=16", "trainer.max_epochs=1", "dataset.batch_size=7", "logger=none"]
        train(compose([*QUICK, *tiny, "plots=false", f"output_dir={options.out / 'outputs'}"]))
        return
    root = f"dataset.root='{options.root}'"
    run_module("fer_voting.train", "-m", "experiment=fer2013_full", root, "seed=0,1,2", f"split={','.join(SPLITS)}")
    folder = options.out / "fer2013_full"
    fer2013_analysis.main(["--root", str(options.root), "--variant", "fer2013_full", "--folder", str(folder)])


PARTS = {"tests": tests, "speed": speed, "prediction": prediction, "memory": memory, "training": training}


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    add_parts(parser, PARTS)
    parser.add_argument("--root", type=lambda text: Path(text).absolute(), help="folder with fer2013.csv")
    parser.add_argument("--out", type=Path, default=Path("experiments/recorded"), help="default: experiments/recorded")
    parser.add_argument("--quick", action="store_true", help="tiny sizes on drawn faces: shows that it runs")
    options = parser.parse_args(arguments)
    if not options.quick and not torch.cuda.is_available():
        parser.error("this machine has no GPU that torch can use (--quick shows that the command runs)")
    if not options.quick and options.root is None:
        parser.error("--root is missing: the folder with fer2013.csv")
    set_up_messages()
    keep_freed_memory()
    for name in options.parts or PARTS:
        PARTS[name](options)


if __name__ == "__main__":
    main()
