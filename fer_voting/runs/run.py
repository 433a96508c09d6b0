"""What a run is: its name, its folder, its identity, and the result it leaves.

A run's folder, `<output_dir>/runs/<name>/`, holds

    config.yaml        the resolved configuration
    metrics.csv        a row an epoch
    checkpoints/       best-<vote>.ckpt (weights), last.ckpt (weights and the optimizer, to go on from)
    predictions/       <vote>-<stage>.npz: what the network of the vote's best epoch said of each image
    *.png              training curves, confusion matrices
    result.json        status, figures, cost, versions, device: always whole, replaced as the run goes on
"""

import csv
import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fer_voting.runs.identity import identity, name_word
from fer_voting.system.atomic import read_json, write_atomically, write_json

__all__ = ["Run", "RunInUseError", "read_history"]


class RunInUseError(RuntimeError):
    """Another process is working in the run's folder."""


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.csv, one an epoch; empty if there is no file. Cells that were not logged are left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


class Run:
    """A run's folder. `name` is a folder's name below `<output_dir>/runs`."""

    def __init__(self, output_dir: Path, name: str) -> None:
        if not name or name_word(name.replace("-", "_")) != name.replace("-", "_"):
            raise ValueError(f"`name` (={name!r}) must be made of letters, digits, '.', '_' and '-'")
        self.name = name
        self.dir = output_dir.absolute() / "runs" / name

    def __repr__(self) -> str:
        return f"Run({str(self.dir)!r})"

    @property
    def last_checkpoint(self) -> Path:
        return self.dir / "checkpoints" / "last.ckpt"

    def best_checkpoint(self, vote: str) -> Path:
        return self.dir / "checkpoints" / f"best-{vote}.ckpt"

    @property
    def metrics_file(self) -> Path:
        return self.dir / "metrics.csv"

    def predictions_file(self, vote: str, stage: str) -> Path:
        return self.dir / "predictions" / f"{vote}-{stage}.npz"

    def result(self) -> dict[str, Any] | None:
        """Content of result.json, or None if there is none. Raises ValueError if it is damaged."""
        path = self.dir / "result.json"
        return read_json(path) if path.exists() else None

    def write_result(self, result: Mapping[str, Any]) -> None:
        write_json(self.dir / "result.json", result)

    def status(self) -> str:
        """`missing`, `running`, `interrupted` (killed; goes on when started again), `finished`, `failed`, or
        `damaged`."""
        try:
            result = self.result()
        except ValueError:
            return "damaged"
        if result is None:
            return "missing"
        if result["status"] == "running":
            try:
                with self._lock():
                    return "interrupted"
            except RunInUseError:
                return "running"
        return str(result["status"])

    @contextmanager
    def open(self, config: Mapping[str, Any]) -> Iterator[None]:
        """Take the folder for this process, for the run that `config` (resolved) describes.

        Raises RunInUseError if another process has it, ValueError if it holds a run of another configuration.
        """
        self.dir.mkdir(parents=True, exist_ok=True)
        with self._lock():
            self._claim(config)
            yield

    @contextmanager
    def _lock(self) -> Iterator[None]:
        # The system frees the lock when its process ends, however that happens.
        with (self.dir / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunInUseError(f"another process is working on the run in {self.dir}") from None
            yield

    def _claim(self, config: Mapping[str, Any]) -> None:
        record = self.dir / "config.yaml"
        if record.exists():
            theirs = identity(OmegaConf.to_container(OmegaConf.load(record)))  # type: ignore[arg-type]
            ours = identity(config)
            different = sorted(k for k in theirs.keys() | ours.keys() if theirs.get(k, ...) != ours.get(k, ...))
            if different:
                told = ", ".join(f"{k}: {theirs.get(k)} there, {ours.get(k)} here" for k in different[:4])
                raise ValueError(
                    f"{self.dir} holds a run of another configuration ({told}); "
                    "it is not overwritten: choose another name=..., or remove the folder"
                )
        else:
            with write_atomically(record) as file:
                file.write(OmegaConf.to_yaml(OmegaConf.create(dict(config))))
