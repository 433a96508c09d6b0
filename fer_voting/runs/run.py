"""A run's folder: its lock, its configuration and inputs, its status and its result.

`<output_dir>/runs/<name>/` holds

    config.yaml        the resolved configuration
    inputs.json        what the run read besides: fingerprint of the data, digest of the initial weights
    trained_on.npz     the images that its network comes from (runs.lineage)
    metrics.csv        a row an epoch
    checkpoints/       best-<vote>.ckpt (weights), last.ckpt (all that a training goes on from)
    predictions/       <vote>-<part>.npz: crop logits of every image, by the network of the vote's best epoch
    *.png              training curves, confusion matrices
    result.json        status, metrics, cost, versions, device; replaced atomically
"""

import csv
import fcntl
import logging
import re
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fer_voting.config import explain, flatten
from fer_voting.runs.identity import different_values, identity
from fer_voting.runs.naming import name_word
from fer_voting.system.atomic import read_json, read_yaml, write_atomically, write_json
from fer_voting.system.ranks import is_first_rank, rank_name
from fer_voting.system.text import counted
from fer_voting.votes import ALL_VOTES

log = logging.getLogger(__name__)

LOCK_ATTEMPTS, LOCK_WAIT_SECONDS = 20, 0.05
"""`Run.status` of another process holds the lock for an instant; a training holds it for its whole time."""


class RunInUseError(RuntimeError):
    """Another process is training in the run's folder."""


class OtherInputsError(ValueError):
    """The folder holds a run of the same name on other data or from other initial weights."""


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.csv, one an epoch; empty if there is no file. Empty cells are left out.

    Raises ValueError if it is damaged.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        try:
            return [
                {name: int(cell) if name == "epoch" else float(cell) for name, cell in row.items() if cell}
                for row in csv.DictReader(file)
            ]
        except (TypeError, ValueError, csv.Error) as error:
            raise ValueError(f"{path} is damaged: {error}") from error


class Run:
    """A run's folder. `name` is the name of a folder below `<output_dir>/runs`."""

    def __init__(self, output_dir: Path, name: str) -> None:
        if not name or name_word(name.replace("-", "_")) != name.replace("-", "_"):
            raise ValueError(f"`name` (={name!r}) must consist of letters, digits, '.', '_' and '-'")
        self.name = name
        self.dir = output_dir.absolute() / "runs" / name

    @property
    def last_checkpoint(self) -> Path:
        return self.dir / "checkpoints" / "last.ckpt"

    def best_checkpoint(self, vote: str) -> Path:
        return self.dir / "checkpoints" / f"best-{vote}.ckpt"

    @property
    def metrics_file(self) -> Path:
        return self.dir / "metrics.csv"

    @property
    def lineage_file(self) -> Path:
        return self.dir / "trained_on.npz"

    def predictions_file(self, vote: str, part: str) -> Path:
        return self.dir / "predictions" / f"{vote}-{part}.npz"

    def config(self) -> dict[str, Any]:
        """Content of config.yaml, plain. Raises FileNotFoundError, or ValueError if it is damaged."""
        path = self.dir / "config.yaml"
        # Parsed in C: OmegaConf's own loader is too slow for a thousand runs.
        config = read_yaml(path)
        if not isinstance(config, dict):
            raise ValueError(f"{path} is damaged: it is no mapping")
        return config

    def result(self) -> dict[str, Any] | None:
        """Content of result.json, or None if there is none. Raises ValueError if it is damaged."""
        path = self.dir / "result.json"
        if not path.exists():
            return None
        result = read_json(path)
        if not isinstance(result, dict) or not isinstance(result.get("status"), str):
            raise ValueError(f"{path} is damaged: it lacks status")
        return result

    def finished_result(self) -> dict[str, Any] | None:
        """The result of a finished run; None for a run that is not finished."""
        result = self.result()
        return result if result is not None and result["status"] == "finished" else None

    def write_result(self, result: Mapping[str, Any]) -> None:
        write_json(self.dir / "result.json", result)

    def status(self) -> str:
        """`missing`, `running`, `interrupted` (killed; continues when started again), `finished`, `failed` or
        `damaged`. Needs only read access."""
        try:
            result = self.result()
        except ValueError:
            return "damaged"
        if result is None:
            return "missing"
        if result["status"] == "running":
            return "running" if self._is_locked() else "interrupted"
        return str(result["status"])

    # Exclusive use ------------------------------------------------------------------------------------------------

    @contextmanager
    def open(self, config: Mapping[str, Any]) -> Iterator[None]:
        """Lock the folder for the run of a settled, resolved configuration. Ranks above 0 leave that to rank 0; their
        errors are logged and kept, before the other ranks fail because that one is gone.

        Raises RunInUseError if another process holds the lock, ValueError if the folder holds a run of another
        configuration, OSError if the file system can't lock files.
        """
        self.dir.mkdir(parents=True, exist_ok=True)
        if not is_first_rank():
            try:
                yield
            except Exception as error:
                log.error(f"rank {rank_name()}: {explain(error)}")
                with suppress(OSError):  # which would hide the error
                    self.error_of_rank(rank_name()).write_text(explain(error))
                raise
            return
        with (self.dir / ".lock").open("w") as file:
            self._take_lock(file.fileno())
            for path in self._errors_of_ranks().values():
                path.unlink()
            self._claim_config(config)
            yield

    def _take_lock(self, descriptor: int) -> None:
        # The system releases the lock when the process ends, however it ends.
        for _ in range(LOCK_ATTEMPTS):
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOCK_WAIT_SECONDS)
        raise RunInUseError(f"another process is training the run in {self.dir}")

    def _is_locked(self) -> bool:
        try:
            with (self.dir / ".lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _claim_config(self, config: Mapping[str, Any]) -> None:
        self.check_config(config)
        path = self.dir / "config.yaml"
        if not (path.exists() and self.was_started):  # one that came to nothing, of a wrong argument, is no run
            with write_atomically(path) as file:
                file.write(OmegaConf.to_yaml(OmegaConf.create(dict(config))))

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Raises ValueError if the folder holds a started run of another settled, resolved configuration, or one that
        does not keep the best epoch of the configuration's vote: of one's own, if it began without."""
        started = (self.dir / "config.yaml").exists() and self.was_started
        if started and (different := self.other_values(config)):
            longer = re.fullmatch(r"trainer\.max_epochs: \d+ there, \d+ here", different)
            more = (
                f"; for more epochs of it: name=OTHER continue_from={self.name} trainer.max_epochs=N" if longer else ""
            )
            raise ValueError(
                f"{self.dir} holds a run of another configuration ({different}); it is not overwritten: "
                f"choose another name by name=..., or remove the folder{more}"
            )
        vote = config["voting"]
        if started and vote["name"] not in ALL_VOTES and vote != self.config().get("voting"):
            raise ValueError(
                f"{self.dir} holds a run that began without this vote ({vote['name']}): its best epoch was not kept; "
                "choose another name by name=..., or judge the network by python -m fer_voting.evaluate"
            )

    def other_values(self, config: Mapping[str, Any]) -> str:
        """How the run's identity differs from that of a settled, resolved configuration; "" if they are equal.

        Raises ValueError if config.yaml is damaged.
        """
        try:
            return different_values(identity(self.config()), identity(config))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.dir / 'config.yaml'} is damaged: {type(error).__name__}: {error}") from error

    def begin_from(self, source: "Run") -> None:
        """Take the files of a finished run, so that a training goes on where that one ended. Rank 0 copies them."""
        if not is_first_rank():
            while not self.last_checkpoint.exists():
                time.sleep(0.1)
            return
        self.last_checkpoint.parent.mkdir(exist_ok=True)
        best = sorted(source.last_checkpoint.parent.glob("best-*.ckpt"))
        for file in [source._inputs_file, source.metrics_file, *best]:
            shutil.copyfile(file, self.dir / file.relative_to(source.dir))
        result = source.finished_result() or {}
        self.write_result(result | {"name": self.name, "status": "running"})  # its seconds count
        draft = self.last_checkpoint.with_name(".last.ckpt")
        shutil.copyfile(source.last_checkpoint, draft)
        draft.replace(self.last_checkpoint)  # last: a kill before it begins again
        log.info(f"{self.name}: trains on from {counted(result['epochs'], 'epoch')} of {source.dir}")

    @property
    def was_started(self) -> bool:
        """Whether an earlier start got as far as loading the data."""
        return self._inputs_file.exists()

    @property
    def _inputs_file(self) -> Path:
        return self.dir / "inputs.json"

    def other_inputs(self, inputs: Mapping[str, Any]) -> str:
        """How the recorded inputs of these keys differ; "" if they do not.

        Raises FileNotFoundError if none are recorded, ValueError if inputs.json is damaged.
        """
        recorded = flatten(read_json(self._inputs_file))
        return "; ".join(_differences({key: v for key, v in recorded.items() if key.split(".")[0] in inputs}, inputs))

    def check_inputs(self, inputs: Mapping[str, Any]) -> None:
        """Record what the run reads besides its configuration, or compare it with what an earlier start recorded.

        Args:
            inputs: plain values; `data` holds a `fingerprint`, which decides, and values that explain it.

        Raises OtherInputsError if they differ.
        """
        if not is_first_rank():
            return
        if not self.was_started:
            write_json(self._inputs_file, inputs)
        elif different := "; ".join(_differences(read_json(self._inputs_file), inputs)):
            raise OtherInputsError(
                f"{self.dir} holds a run of the same name on other inputs ({different}); it is neither returned nor "
                "overwritten: choose another name by name=..., or remove the folder"
            )

    def recorded_threads(self) -> tuple[int, ...]:
        """The number of threads of a training that this start continues; empty if it begins anew."""
        result = self.result() if self.last_checkpoint.exists() else None
        return (result["threads"],) if result and "threads" in result else ()

    def error_of_rank(self, rank: int | str) -> Path:
        """File with the error of a rank above 0, in one line."""
        return self.dir / f"error-rank{rank}.txt"

    def _errors_of_ranks(self) -> dict[str, Path]:
        return {path.stem.removeprefix("error-rank"): path for path in sorted(self.dir.glob("error-rank*.txt"))}

    @contextmanager
    def recording(self, about: Mapping[str, Any]) -> Iterator["Recording"]:
        """Keep result.json up to date: `running` at first, then `finished` or `failed`.

        After Ctrl-C or a kill it stays `running`, which `status` reads as interrupted.

        Args:
            about: what is known before the training.
        """
        earlier = self.result()
        seconds_before = earlier["seconds"] if earlier and self.last_checkpoint.exists() else 0.0
        recording = Recording(self, about, seconds_before)
        try:
            yield recording
        except OtherInputsError:  # the folder is another run's, whose result stays
            if is_first_rank() and earlier is not None:
                self.write_result(earlier)
            raise
        except BaseException as error:
            with suppress(OSError):  # of a full disk, which is the error under way
                if isinstance(error, Exception):
                    errors = {rank: path.read_text() for rank, path in self._errors_of_ranks().items()}
                    others = [f"rank {rank}: {text}" for rank, text in errors.items() if text != explain(error)]
                    recording.values |= {"status": "failed", "error": others[0] if others else explain(error)}
                    if is_first_rank():
                        (self.dir / "error.txt").write_text(traceback.format_exc())
                recording.write()
            raise
        recording.values["status"] = "finished"
        recording.write()


class Recording:
    """The content of a run's result.json while the run lasts. Only rank 0 writes it.

    Attributes:
        values: plain; `seconds` counts earlier starts that the run continues, killed ones up to their last epoch.
    """

    def __init__(self, run: Run, about: Mapping[str, Any], seconds_before: float) -> None:
        self.run, self.seconds_before = run, seconds_before
        self.started = time.monotonic()  # the clock may be set while a training runs
        self.values: dict[str, Any] = {**about, "status": "running", "error": None}
        self.write()

    def write(self) -> None:
        self.values["seconds"] = round(self.seconds_before + time.monotonic() - self.started, 1)
        if is_first_rank():
            self.run.write_result(self.values)

    def begin(self, progress: Mapping[str, Any]) -> None:
        """Record how long the training will be, for `sweep status`."""
        self.values["progress"] = progress
        self.write()

    def complete(self, measured: Mapping[str, Any]) -> None:
        """Take the result of the training; it is written when the recording ends."""
        self.values.pop("progress", None)
        self.values |= measured


def _differences(there: Any, here: Mapping[str, Any]) -> list[str]:
    """`key: A there, B here` for every input that differs; of data, the values that explain the fingerprint too.

    `there` is what inputs.json holds, which may be damaged.
    """
    theirs, ours = flatten(there), flatten(dict(here))
    explained = theirs.get("data.fingerprint") != ours["data.fingerprint"]
    return [
        f"{key}: {theirs.get(key)} there, {ours.get(key)} here"
        for key in sorted(theirs.keys() | ours.keys(), key=lambda key: (not key.endswith("fingerprint"), key))
        if theirs.get(key) != ours.get(key) and (explained or not key.startswith("data."))
    ]
