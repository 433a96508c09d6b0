"""Kill commands at random moments, start them again, and compare with what an undisturbed command leaves: `make chaos`.

`python -m tests.chaos.run [--kills 100] [--seed 0] [--out FOLDER]`. Each scenario is a command on small data. It runs
once undisturbed; then it is killed (SIGKILL to the whole process group) before a random file operation, or at a random
time between two of them, and started again, until it ends by itself. Then final weights, predictions, metrics and
results must equal the undisturbed ones bit for bit. A command that ended by itself begins anew in an empty folder,
until all kills are done. Minutes on two cores; exit code 1 if anything differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from experiments.common import REPO, write_result
from fer_voting.config import flatten
from fer_voting.results.table import Table
from fer_voting.system.atomic import read_json
from fer_voting.system.environment import describe_device, git_commit
from fer_voting.system.messages import progress_bar
from tests.chaos import kill_switch

# `sweep` is named: its default depends on the folder of the output.
TRAIN = ("fer_voting.train", "dataset.size=24", "model.width=4", "logger=none", "dataset.batch_size=20", "sweep=chaos")
MULTIRUN = (TRAIN[0], "-m", *TRAIN[1:])
FACES = ("dataset.train_size=60", "dataset.val_size=20", "dataset.test_size=20", "trainer.max_epochs=3")
TWO_RANKS = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp")

VOLATILE = ("started", "seconds", "images_per_second")
"""Keys of result.json that measure time."""

LIMIT_SECONDS = 600
"""Time limit of one command; one that takes longer hangs."""


@dataclass(frozen=True)
class Scenario:
    """A command, and what must exist before it.

    Attributes:
        words: module and arguments; `{out}` is the output folder, `{data}` the folder of the made images.
        share: of all kills.
        before: a command whose output the folder holds already.
    """

    name: str
    words: tuple[str, ...]
    share: float
    before: tuple[str, ...] | None = None


SELECTION = (*TRAIN, *FACES, "split=m3", "output_dir={out}")
SCENARIOS = (
    Scenario(
        "training, no loader worker, batched augmentation", (*TRAIN, *FACES, "split=m1", "output_dir={out}"), 0.22
    ),
    Scenario(
        "training, two loader workers, albumentations",
        (*TRAIN, *FACES, "split=m3", "augment.backend=albumentations", "dataset.num_workers=2", "output_dir={out}"),
        0.14,
    ),
    Scenario(
        "training in two processes (DDP)", (*TRAIN, *FACES, *TWO_RANKS, "split=baseline", "output_dir={out}"), 0.12
    ),
    Scenario("refit", (*SELECTION, "refit=true"), 0.14, before=SELECTION),
    Scenario("sweep of three jobs", (*MULTIRUN, *FACES, "split=baseline,m1,m3", "output_dir={out}"), 0.14),
    Scenario(
        "packing and training of image files",
        (*TRAIN, "dataset=folder", "dataset.root={data}", "trainer.max_epochs=1", "split=m3", "output_dir={out}"),
        0.12,
    ),
    Scenario(
        "prediction of image files",
        (
            *("fer_voting.predict", "{data}", "--aligned", "--run", "{out}/runs/faces-m3-RUN"),
            *("--out", "{out}/faces.csv", "--overwrite"),
        ),
        0.12,
        before=(*SELECTION, "name=faces-m3-RUN"),
    ),
)


@dataclass
class Outcome:
    """The kills of a scenario, and their outcome."""

    kills: Counter[str] = field(default_factory=Counter)
    comparisons: int = 0
    differences: list[str] = field(default_factory=list)


class Laboratory:
    """Runs commands below a scratch folder, in a process group of their own."""

    def __init__(self, scratch: Path, generator: random.Random) -> None:
        self.scratch, self.random = scratch, generator
        self.data = scratch / "images"
        make_images(self.data)
        (scratch / "site").mkdir()
        (scratch / "site" / "sitecustomize.py").write_text(
            "from tests.chaos.kill_switch import install\n\ninstall()\n", encoding="utf-8"
        )

    def start(self, words: Sequence[str], out: Path, number: int) -> subprocess.Popen[str]:
        """The command, which will be killed before file operation `number` (0: it won't)."""
        module, *arguments = (word.format(out=out, data=self.data) for word in words)
        log = self.log(out)
        log.unlink(missing_ok=True)
        paths = os.pathsep.join([str(self.scratch / "site"), str(REPO)])
        environment = {
            **os.environ,
            "PYTHONPATH": paths,
            "OMP_NUM_THREADS": "1",
            **kill_switch.plan(str(out), str(log), number),
        }
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.scratch,
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def log(self, out: Path) -> Path:
        return out.with_name(f"{out.name}.log")

    def operations(self, out: Path) -> list[str]:
        """`number operation path` of each file operation of the last command."""
        log = self.log(out)
        return log.read_text().splitlines() if log.exists() else []

    def finish(self, process: subprocess.Popen[str]) -> int:
        """Wait for the command's end; its exit code. Raises RuntimeError for one that fails or hangs."""
        try:
            _, errors = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            raise RuntimeError(f"{process.args!r} takes more than {LIMIT_SECONDS} s") from error
        if process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{errors[-3000:]}")
        return process.returncode

    def run(self, words: Sequence[str], out: Path) -> float:
        """Run the command undisturbed; seconds from its first file operation to its end."""
        process = self.start(words, out, 0)
        self._wait_for_first_operation(process, out)
        start = time.monotonic()
        self.finish(process)
        return time.monotonic() - start

    def run_and_kill(self, words: Sequence[str], out: Path, operations: int, seconds: float) -> str | None:
        """Run the command and kill it; the moment, or None if it ended by itself before.

        Half of the kills come before one of the undisturbed command's `operations`, the others within its `seconds`.
        """
        if self.random.random() < 0.5:
            code = self.finish(self.start(words, out, self.random.randint(1, operations)))
            return f"before {self._last(out)}" if code else None
        process = self.start(words, out, 0)
        self._wait_for_first_operation(process, out)
        try:
            process.wait(self.random.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        return f"after {self._last(out)}" if self.finish(process) else None

    def _wait_for_first_operation(self, process: subprocess.Popen[str], out: Path) -> None:
        while process.poll() is None and not self.operations(out):
            time.sleep(0.02)

    def _last(self, out: Path) -> str:
        operations = self.operations(out)
        if not operations:
            return "the first file operation"
        _, operation, path = operations[-1].split(" ", 2)
        return f"{operation} {kind_of(Path(path).relative_to(out))}"


def make_images(folder: Path) -> None:
    """Three classes of 100 images of noise, in class folders."""
    generator = np.random.default_rng(0)
    for name in ("happy", "neutral", "sad"):
        (folder / name).mkdir(parents=True)
        for number in range(100):
            image = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / name / f"{number:03}.png"), image)


def kind_of(path: Path) -> str:
    """The content of a file below an output folder, as the table of moments names it."""
    if path.parts[0] == "packs":
        return "the pack"
    if path.parts[0] == "sweeps":
        return "the sweep's files"
    name = path.name
    for part, kind in (
        ("checkpoints", "a checkpoint"),
        ("predictions", "predictions"),
        ("metrics.csv", "metrics.csv"),
        ("result.json", "result.json"),
        ("inputs.json", "the run's configuration and inputs"),
        ("config.yaml", "the run's configuration and inputs"),
        (".png", "plots"),
        ("faces.csv", "predicted rows"),
    ):
        if part in name or part in path.parts:
            return kind
    return "other files"


def differences(expected: Path, found: Path) -> list[str]:
    """`file: what differs` of the results in two output folders, with times left out."""
    names = sorted({path.relative_to(folder) for folder in (expected, found) for path in results_in(folder)})
    found_differences = []
    for name in names:
        ours, theirs = content(expected / name), content(found / name)
        if ours != theirs:
            keys = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
            found_differences.append(f"{name}: {', '.join(keys)}")
    return found_differences


def results_in(folder: Path) -> list[Path]:
    patterns = ("runs/*/result.json", "runs/*/metrics.csv", "runs/*/checkpoints/*", "runs/*/predictions/*", "faces.csv")
    return [path for pattern in patterns for path in folder.glob(pattern)]


def content(path: Path) -> dict[str, Any]:
    """The content of a result's file by name, in a form that `==` compares; empty if there is no file."""
    if not path.exists():
        return {}
    if path.suffix == ".json":
        return {key: value for key, value in flatten(read_json(path)).items() if key not in VOLATILE}
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: (arrays[name].dtype.str, arrays[name].shape, arrays[name].tobytes()) for name in arrays.files}
    if path.suffix == ".ckpt":
        state = torch.load(path, map_location="cpu", weights_only=True)
        weights = {key: (value.shape, value.numpy().tobytes()) for key, value in state["state_dict"].items()}
        return {"epoch": state["epoch"], "step": state["global_step"], **weights}
    return {"bytes": path.read_bytes()}


def try_out(laboratory: Laboratory, scenario: Scenario, kills: int, progress: tqdm) -> Outcome:
    """Kill the scenario's command `kills` times."""
    outcome = Outcome()
    folder = laboratory.scratch / str(SCENARIOS.index(scenario))
    prepared, whole, disturbed = folder / "prepared" / "out", folder / "whole" / "out", folder / "disturbed" / "out"
    prepared.mkdir(parents=True)
    if scenario.before:
        laboratory.run(scenario.before, prepared)

    def begin(out: Path) -> None:
        shutil.rmtree(out.parent, ignore_errors=True)
        shutil.copytree(prepared, out)

    begin(whole)
    seconds = laboratory.run(scenario.words, whole)
    operations = max(int(line.split()[0]) for line in laboratory.operations(whole))
    begin(disturbed)
    pending = False
    while outcome.kills.total() < kills or pending:
        if outcome.kills.total() < kills:
            moment = laboratory.run_and_kill(scenario.words, disturbed, operations, seconds)
        else:
            laboratory.run(scenario.words, disturbed)
            moment = None
        if moment is not None:
            outcome.kills[moment] += 1
            progress.update()
            pending = True
            continue
        if pending:
            outcome.comparisons += 1
            outcome.differences += differences(whole, disturbed)
        begin(disturbed)
        pending = False
    return outcome


def report(outcomes: dict[str, Outcome], seed: int) -> tuple[str, dict[str, Any]]:
    """Markdown and JSON of all scenarios."""
    rows = [[name, str(o.kills.total()), str(o.comparisons), str(len(o.differences))] for name, o in outcomes.items()]
    moments: Counter[str] = sum((o.kills for o in outcomes.values()), Counter())
    total = sum(len(o.differences) for o in outcomes.values())
    about = {
        "kills": moments.total(),
        "comparisons": sum(o.comparisons for o in outcomes.values()),
        "differences": total,
        "seed": seed,
        "date": date.today().isoformat(),
        "git_commit": git_commit(),
        "device": describe_device(torch.device("cpu")),
    }
    summary = (
        f"{about['kills']} kills, {about['comparisons']} comparisons, {total} differences. Seed {seed}; commit "
        f"{about['git_commit']}; {about['device']}; {about['date']}."
    )
    text = "\n".join(
        [
            Table(["command", "kills", "comparisons", "differences"], rows).markdown(),
            Table(["moment of the kill", "kills"], [[m, str(n)] for m, n in moments.most_common()]).markdown(),
            summary,
            "",
        ]
    )
    scenarios = {
        name: {"kills": dict(o.kills), "comparisons": o.comparisons, "differences": o.differences}
        for name, o in outcomes.items()
    }
    return text, {**about, "scenarios": scenarios}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in all (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--only", metavar="TEXT", default="", help="scenarios whose name contains it")
    parser.add_argument("--out", type=Path, help="folder for chaos.md and chaos.json")
    options = parser.parse_args(arguments)
    chosen = [scenario for scenario in SCENARIOS if options.only in scenario.name]
    if not chosen or options.kills < 1:
        parser.error("--kills must be at least 1, and --only a part of: " + "; ".join(s.name for s in SCENARIOS))
    generator = random.Random(options.seed)
    share = sum(scenario.share for scenario in chosen)
    outcomes = {}
    with tempfile.TemporaryDirectory() as scratch, progress_bar(total=0, unit=" kills") as progress:
        laboratory = Laboratory(Path(scratch), generator)
        counts = {s.name: max(1, round(options.kills * s.share / share)) for s in chosen}
        progress.total = sum(counts.values())
        for scenario in chosen:
            progress.set_description(scenario.name)
            outcomes[scenario.name] = try_out(laboratory, scenario, counts[scenario.name], progress)
    text, about = report(outcomes, options.seed)
    print(text)
    if options.out:
        write_result(options.out, "chaos", text, about)
    if about["differences"]:
        print(json.dumps(about["scenarios"], indent=1), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
