"""Everything that wants a GPU, in one command: `python -m experiments.gpu --root DIR`, DIR with FER2013.

1. Training steps of every split in bfloat16, augmentation included, from a pack on the GPU: images a second, the share
   of a step that waits for data, and of an H100's dense 989 TFLOP/s what is reached; plain and by `compile=true`.
2. Table 2 by `torch.cuda.memory_allocated`.
3. The four splits on FER2013 at full width, 30 epochs, seeds 0, 1, 2, recorded in `experiments/fer2013/`.

About an hour on an H100, by its targets; each part can be run alone, and the third goes on where it was stopped.
`--quick` shows on any machine that it runs: drawn faces, tiny sizes, figures that mean nothing.
"""

import argparse
import functools
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import lightning as L
import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from experiments import table2
from experiments.bench import SPLITS, Clock, Row, table
from experiments.pages import update_pages
from experiments.record import record
from fer_voting.config import compose_config
from fer_voting.data.module import make_datamodule
from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.models.compiled import compile_network
from fer_voting.models.cost import count_gmacs
from fer_voting.runs.sweeps import Sweep
from fer_voting.system.atomic import write_atomically, write_json
from fer_voting.system.environment import describe_device, git_commit, keep_freed_memory, package_versions
from fer_voting.system.messages import set_up_messages
from fer_voting.training.callbacks import Throughput
from fer_voting.training.module import VotingModule

PARTS = ("speed", "memory", "training")
H100_TFLOPS = 989
"""Dense bfloat16 of an H100 SXM, by its data sheet."""
TARGETS = {"baseline": 40_000.0, "m1": 7_500.0, "m2": 10_000.0, "m3": 16_000.0}
"""Images a second on an H100 at batch 1,024."""
QUICK = ["dataset=faces", "dataset.train_size=28", "dataset.val_size=7", "dataset.test_size=7", "dataset.size=24"]


def measure(words: list[str], split: str, batch_size: int, compiled: bool, width: int, epochs: int) -> list[Row]:
    """Rows of one training: its rate, and, in a second one that waits for the device at every step, its waiting."""
    name = f"{split}, batch {batch_size:,}{', compiled' if compiled else ''}"
    found = {}
    for callback in (Throughput(), Clock()):
        config = compose_config([*words, f"dataset.batch_size={batch_size}"])
        datamodule = make_datamodule(OmegaConf.to_container(config.dataset, resolve=True))  # type: ignore[arg-type]
        datamodule.setup()
        net = VotingResNet18(split, width=width)
        record_ = NetworkInfo(split, width, datamodule.class_names, datamodule.size, datamodule.name)
        module = VotingModule(net, functools.partial(torch.optim.Adam, lr=2e-4, fused=True), 1.0, record_)
        if compiled:
            compile_network(net)
        trainer = L.Trainer(
            accelerator="auto", devices=1, precision="bf16-mixed", max_epochs=epochs, limit_val_batches=0, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[callback],
            log_every_n_steps=1, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=datamodule)
        found[type(callback)] = callback
    rate, waiting = found[Throughput].images_per_second, found[Clock].share_between_steps  # type: ignore[union-attr]
    assert rate is not None
    gmacs = count_gmacs(VotingResNet18(split, width=width), datamodule.size)
    share = 3 * 2 * gmacs * rate / 1e3 / H100_TFLOPS  # the backward pass computes twice as much as the forward pass
    return [
        Row(f"training {name}", rate, "images/s", least=TARGETS[split] if batch_size == 1024 else None),
        Row(f"training {name}: of 989 TFLOP/s", 100 * share, "%"),
        Row(f"training {name}: waiting for data, of a step", 100 * waiting, "%", most=3.0),
    ]


def speed(words: list[str], out: Path, quick: bool) -> None:
    """Part 1."""
    rows = []
    cases = [
        (split, batch_size, compiled)
        for split in (SPLITS if not quick else ("m1",))
        for batch_size in ((135, 1024) if not quick else (7,))
        for compiled in ((False, True) if not quick else (False,))
    ]
    for split, batch_size, compiled in tqdm(cases, desc="training steps", unit="case"):
        rows += measure(words, split, batch_size, compiled, *((16, 2) if quick else (64, 6)))
    device = describe_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    origin = {"device": device, "git_commit": git_commit(), "date": date.today().isoformat(), "quick": quick}
    write_json(
        out / "speed.json",
        {"environment": origin | package_versions(), "rows": [vars(row) | {"verdict": row.verdict} for row in rows]},
    )
    text = f"{table(rows)}\n{device}; commit {origin['git_commit']}; {origin['date']}.\n"
    with write_atomically(out / "speed.md") as file:
        file.write(text)
    print(text)


def memory(out: Path, quick: bool) -> None:
    """Part 2."""
    table2.main(["--output-dir", str(out), *(["--batch-size", "2"] if quick else [])])


def training(words: list[str], out: Path, quick: bool) -> None:
    """Part 3."""
    how = ["trainer.precision=bf16-mixed", "seed=0,1,2", "split=baseline,m1,m2,m3", "logger=offline"]
    output_dir = Path("outputs")
    if quick:
        how = [
            "split=m3",
            "model.width=16",
            "dataset.schedule.epochs=1",
            "logger=none",
            "dataset.batch_size=7",
        ]
        output_dir = out / "outputs"
    command = ["-m", "fer_voting.train", "-m", *words, *how, "sweep=fer2013", f"output_dir={output_dir}"]
    print(f"$ python {' '.join(command)}", flush=True)
    subprocess.run([sys.executable, *command], check=True)
    record(Sweep(output_dir / "sweeps" / "fer2013"), out)
    update_pages(out / "table.md")
    print(f"recorded in {out}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--root", type=Path, help="folder with fer2013.csv")
    parser.add_argument("--out", type=Path, default=Path("experiments/fer2013"))
    parser.add_argument("--quick", action="store_true", help="tiny sizes on drawn faces: shows that it runs")
    options = parser.parse_args(arguments)
    parts = options.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not options.quick and not torch.cuda.is_available():
        parser.error("this machine has no GPU that torch can use (--quick shows that the command runs)")
    if not options.quick and options.root is None:
        parser.error("--root is missing: the folder with fer2013.csv")
    set_up_messages()
    keep_freed_memory()
    words = QUICK if options.quick else ["dataset=fer2013", f"dataset.root='{options.root.absolute()}'"]
    if "speed" in parts:
        with tempfile.TemporaryDirectory() as folder:  # its packs, where nothing else is kept
            speed(
                [*words, f"output_dir={folder}" if options.quick else "output_dir=outputs"], options.out, options.quick
            )
    if "memory" in parts:
        memory(options.out, options.quick)
    if "training" in parts:
        training(words, options.out, options.quick)


if __name__ == "__main__":
    main()
