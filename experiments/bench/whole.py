"""Parts of the benchmark that measure whole commands and the processor time of a step: `sweep`, `host`, `plain`."""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from hydra.utils import instantiate

from experiments.bench.measure import BenchmarkResult
from fer_voting import compose, train
from fer_voting.config import make
from fer_voting.data.augment.batched import BatchedAugment
from fer_voting.experiment import make_data, make_network
from fer_voting.models.images import normalise
from fer_voting.system.machine import usable_cores


def bench_sweep(result: BenchmarkResult, size: Any, options: argparse.Namespace) -> None:
    """The demo's trainings side by side against one after another with all threads, idle and beside a busy process."""
    splits = "split=baseline,m3" if options.quick else "split=baseline,m1,m2,m3"
    cores = 1 if options.quick else usable_cores()  # with two threads, another process here would make it take minutes
    tiny = [
        *("dataset.train_size=60", "dataset.val_size=20", "dataset.test_size=20", "dataset.batch_size=20"),
        *("trainer.max_epochs=1", "model.width=4", "dataset.size=24"),
    ]
    brief = ["dataset.train_size=360", "dataset.val_size=90", "dataset.test_size=90", "trainer.max_epochs=1"]
    # A sweep one after another beside a busy process may be ten times as slow: it is a smaller one.
    cases: list[tuple[str, int, list[str], float]] = [
        ("idle", 0, [], 1.15),
        ("beside a busy process", 1, brief, 6.0),
    ]
    for where, busy, words, least in cases[-1:] if options.quick else cases:
        seconds = {}
        for how, choice in (("one after another", ["jobs=1", f"threads={cores}"]), ("side by side", ["jobs=auto"])):
            with tempfile.TemporaryDirectory() as folder, _busy(busy):
                seconds[how] = _seconds_of(
                    *("-m", "fer_voting.train", "-m", "experiment=demo", splits, "plots=false", "logger=none", *choice),
                    *(f"output_dir={folder}", *(tiny if options.quick else words)),
                )
            result.seconds[f"sweep {where}, {how}"] = [seconds[how]]
            result.add(f"sweep {where}, {how}", seconds[how], "s")
        ratio = seconds["one after another"] / seconds["side by side"]
        result.add(f"sweep {where}: side by side against one after another", ratio, "times faster", least=least)


class ProcessorClock(L.Callback):
    """Processor time at the end of each step, in seconds, by epoch."""

    epochs: ClassVar[list[list[float]]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.epochs.append([])

    def on_train_batch_end(self, *_: Any) -> None:
        self.epochs[-1].append(time.process_time())


def bench_host(result: BenchmarkResult, size: Any, options: argparse.Namespace) -> None:
    """Processor time of a training step of a tiny network as `train` runs it, against a bare loop over its batches.

    In both are loading, augmentation, forward pass, loss, backward pass and the optimizer's step; in `train` also what
    Lightning, the callbacks and the guard against losses that are not finite add.
    """
    batches, repeats = (20, 1) if options.quick else (200, 3)
    words = [
        *("dataset=faces", "split=baseline", "model.width=4", "dataset.size=24", "dataset.batch_size=8"),
        *(f"dataset.train_size={8 * batches}", "dataset.val_size=20", "dataset.test_size=20", "threads=1"),
        *("logger=none", "plots=false", "trainer.max_epochs=2", "trainer.accelerator=cpu"),
        "+callbacks.clock._target_=experiments.bench.whole.ProcessorClock",
    ]
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            ProcessorClock.epochs.clear()
            config = compose([*words, f"output_dir={folder}", f"name=run{repeat}"])
            train(config)
            result.seconds.setdefault("step of train", []).append(_median_step(ProcessorClock.epochs[-1]))
            result.seconds.setdefault("step of a bare loop", []).append(_median_step(_bare_loop(config)))
    torch.set_num_threads(threads)
    ours, bare = (min(result.seconds[what]) for what in ("step of train", "step of a bare loop"))
    result.add("processor time of a step, tiny network, train", 1e3 * ours, "ms")
    result.add("processor time of a step, tiny network, bare loop", 1e3 * bare, "ms")
    result.add("processor time of a step, train against a bare loop", ours / bare, "times", most=1.15)


def _median_step(ends: Sequence[float]) -> float:
    return statistics.median(end - begin for begin, end in itertools.pairwise(ends[2:]))


def _bare_loop(config: Any) -> list[float]:
    """Processor time at the end of each step of an epoch without Lightning: the same batches, network and optimizer."""
    data = make_data(config)
    data.setup()
    net, loss_of = make_network(config, len(data.class_names)), instantiate(config.loss)
    optimizer = make(config.optimizer)([*net.parameters()])
    assert isinstance(data.augment, BatchedAugment)
    ends = []
    for images, targets, positions in data.train_dataloader():
        loss = loss_of(net(normalise(data.augment(images, 0, positions, config.seed))), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(time.process_time())
    return ends


def bench_plain(result: BenchmarkResult, size: Any, options: argparse.Namespace) -> None:
    """The whole command against a training as a Lightning user would write it from the paper (plain.py)."""
    batch = 20 if options.quick else 135
    images = {"m1": 20} if options.quick else {"baseline": 8 * 135, "m1": 3 * 135}
    precisions = ("bf16-mixed",) if options.quick else ("32-true", "bf16-mixed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, count in images.items():
            faces = [
                *("dataset=faces", f"dataset.train_size={count}", f"dataset.val_size={batch}"),
                f"dataset.test_size={batch}",
            ]
            pack = make(compose([*faces, f"output_dir={folder}"]).dataset).make_pack().folder
            for precision in precisions:
                ours = _seconds_of(
                    *("-m", "fer_voting.train", *faces, f"split={split}", f"trainer.precision={precision}"),
                    *("trainer.max_epochs=2", f"dataset.batch_size={batch}", "augment=paper", "logger=none"),
                    *("trainer.accelerator=cpu", "plots=false", f"output_dir={folder}"),
                )
                plain = _seconds_of(
                    *("-m", "experiments.bench.plain", str(pack), "--split", split, "--precision", precision),
                    *("--epochs", "2", "--batch", str(batch), "--out", str(folder / "plain")),
                )
                what = f"whole command, {split}, {precision}"
                result.seconds[f"{what}, ours"], result.seconds[f"{what}, plain"] = [ours], [plain]
                result.add(what, ours, "s")
                result.add(f"{what}, against a plain training", plain / ours, "times faster", least=1.2)


def _seconds_of(*words: str) -> float:
    """Wall-clock seconds of `python WORDS...`. Raises CalledProcessError if it fails."""
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


@contextmanager
def _busy(processes: int) -> Iterator[None]:
    """Keep so many processes busy meanwhile."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
