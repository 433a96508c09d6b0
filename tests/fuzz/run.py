"""Damaged and hostile input to everything that reads files of others: `make fuzz`.

`python -m tests.fuzz.run [--inputs 100000] [--seed 0] [--only TEXT] [--out FOLDER]`. Real files are made, and
changed by Hypothesis: bits flipped, parts cut out, doubled, spliced from another, numbers made huge, members of an
archive changed and packed again; some inputs are random from the start. Whatever comes, a reader may return, or raise
ValueError or OSError with one line. It may not take 20 seconds or a gigabyte, write outside of its folder, start a
program, or connect. A target is a process of its own, so that one that crashes is seen. Exit code 1 if any fails; the
failing input is printed, and is the last file in the folder that is printed with it.
"""

import argparse
import io
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tqdm import tqdm

from experiments.common import write_result
from fer_voting.results.table import Table
from fer_voting.system.atomic import read_json
from fer_voting.system.environment import git_commit
from tests.fuzz.guard import watched
from tests.fuzz.targets import NUMBERS, TARGETS, Files, Target

MAX_BYTES = 2**30
"""Resident memory that an input may add."""
MAX_SECONDS = 20
PRELOADED = ["tests.fuzz.targets", "av", "onnx", "onnxruntime"]
"""Modules that the readers import, imported once."""


@dataclass
class Count:
    """Outcome of a target's inputs."""

    target: str
    inputs: int = 0
    read: int = 0
    refused: int = 0
    mib: int = 0
    """The most that resident memory grew over all inputs."""
    seconds: float = 0.0
    failure: str = ""


# --- inputs -------------------------------------------------------------------------------------------------------


@st.composite
def changed(draw: st.DrawFn, forms: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """A real file with one to five changes."""
    data = draw(st.sampled_from(list(forms)))
    if data[:4] == b"PK\x03\x04" and draw(st.booleans()):
        return draw(repacked(data, tokens))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from((1, 2, 4, 16, 256, 10**6))))
        how = draw(st.sampled_from(("flip", "token", "token", "cut", "double", "splice", "bytes", "number")))
        if how == "flip" and start < len(data):
            data = data[:start] + bytes([data[start] ^ 1 << draw(st.integers(0, 7))]) + data[start + 1 :]
        elif how == "token":
            data = data[:start] + draw(st.sampled_from(list(tokens))) + data[start:]
        elif how == "cut":
            data = data[:start] + data[stop:]
        elif how == "double":
            data = data[:stop] + data[start:]
        elif how == "splice":
            other = draw(st.sampled_from(list(forms)))
            data = data[:start] + other[draw(st.integers(0, len(other))) :]
        elif how == "bytes":
            data = data[:start] + draw(st.binary(min_size=1, max_size=8)) + data[stop:]
        elif how == "number":
            digits = [place for place, byte in enumerate(data[start:stop], start) if 48 <= byte <= 57]
            place = digits[0] if digits else start
            data = data[:place] + draw(st.sampled_from(NUMBERS)) + data[place + 1 :]
    return data


@st.composite
def repacked(draw: st.DrawFn, data: bytes, tokens: Sequence[bytes]) -> bytes:
    """An archive with a changed member, its checksums right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    chosen = draw(st.sampled_from(sorted(members)))
    members[chosen] = draw(changed([members[chosen]], tokens))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_STORED, 8)))) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, archive.compression)
    return file.getvalue()


def inputs(files: Files, tokens: Sequence[bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
    """A file's name and its changed content; one in sixteen is random from the start."""

    def content(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        rare = st.integers(0, 15).flatmap(
            lambda n: (
                changed(files[name], tokens)
                if n
                else st.lists(st.sampled_from(list(tokens)) | st.binary()).map(b"".join)
            )
        )
        return st.tuples(st.just(name), rare)

    return st.sampled_from(sorted(files)).flatmap(content)


# --- running ------------------------------------------------------------------------------------------------------


def fuzz(target: Target, folder: Path, count: int, number: int | None, progress: Callable[[], None]) -> Count:
    """Give `count` inputs to a target.

    Args:
        folder: empty; holds the last input.
        number: seed; None: always the same inputs.
    """
    files = target.seeds(folder)
    result = Count(target.name)
    start = time.monotonic()

    def put(name: str, content: bytes) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    for name, forms in files.items():
        put(name, forms[0])
    for name, forms in files.items():  # every real form can be read; also, what is imported late is so before the watch
        for form in reversed(forms):
            put(name, form)
            target.read(folder)
    memory = _resident_bytes()

    @settings(
        max_examples=count,
        derandomize=number is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(inputs(files, target.tokens))
    def one(given_input: tuple[str, bytes]) -> None:
        name, content = given_input
        put(name, content)
        result.inputs += 1
        try:
            with _alarm(), warnings.catch_warnings(), watched(folder) as seen:
                warnings.simplefilter("ignore")  # of NumPy and Pillow, about odd headers
                target.read(folder)
            result.read += 1
        except (ValueError, OSError) as error:
            result.refused += 1
            if "\n" in str(error):
                raise AssertionError(f"more than one line: {error}") from error
        finally:
            if len(files) > 1:
                put(name, files[name][0])
            progress()
        assert not seen, f"it may not: {seen}"
        assert _resident_bytes() - memory < MAX_BYTES, "it took more than a gigabyte"

    try:
        (one if number is None else seed(number)(one))()
    except BaseException as error:
        result.failure = "".join(traceback.format_exception(error, limit=-6))
        result.failure = "\n".join(line[:300] for line in result.failure.splitlines())
    result.mib = max(0, (_resident_bytes() - memory) >> 20)
    result.seconds = round(time.monotonic() - start, 1)
    return result


class _TooLong(BaseException):
    pass


class _alarm:
    """Ends what takes longer than MAX_SECONDS, where Python gets a word in."""

    def __enter__(self) -> None:
        signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    @staticmethod
    def _ring(*_: object) -> None:
        raise _TooLong(f"it took more than {MAX_SECONDS} s")


def _resident_bytes() -> int:
    """The most that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- the command --------------------------------------------------------------------------------------------------


def _in_process(name: str, folder: Path, count: int, number: int, pipe: Any) -> None:
    os.environ["TQDM_DISABLE"] = "1"
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the life of this process
    (target,) = (each for each in TARGETS if each.name == name)
    sent = time.monotonic()
    done = 0

    def progress() -> None:
        nonlocal sent, done
        done += 1
        if time.monotonic() - sent > 1:
            pipe.send(done)
            sent, done = time.monotonic(), 0

    pipe.send(fuzz(target, folder, count, number, progress))


def run_target(target: Target, folder: Path, count: int, number: int, progress: "tqdm[Any]") -> Count:
    """`fuzz` in a process of its own; a crash is a failure."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_in_process, args=(target.name, folder, count, number, theirs))
    process.start()
    theirs.close()
    seen = 0
    try:
        while not isinstance(message := ours.recv(), Count):
            seen += message
            progress.update(message)
        process.join()
    except EOFError:
        process.join()
        return Count(target.name, seen, failure=f"the process ended with {process.exitcode}")
    progress.update(message.inputs - seen)
    return message


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The table, Markdown."""
    table = Table(["reader", "inputs", "read", "refused in one line", "failures", "memory added (MiB)", "time (s)"], [])
    for row in rows:
        cells = [f"{row[key]:,}" for key in ("inputs", "read", "refused")]
        table.rows.append(
            [row["target"], *cells, str(int(bool(row["failure"]))), str(row["mib"]), f"{row['seconds']:.0f}"]
        )
    total = sum(row["inputs"] for row in rows)
    failures = sum(bool(row["failure"]) for row in rows)
    about = sorted({f"commit {row['commit']}, {row['date']}, seed {row['seed']}" for row in rows})
    return f"{table.markdown()}\n{total:,} inputs in all, {failures} failures. {'; '.join(about)}.\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=102_000, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="readers whose name contains it; others' rows are kept"
    )
    parser.add_argument("--out", type=Path, help="folder for fuzz.md and fuzz.json")
    options = parser.parse_args(arguments)
    chosen = [target for target in TARGETS if options.only in target.name]
    if not chosen or options.inputs < 1:
        parser.error("--inputs must be at least 1, and --only a part of: " + ", ".join(t.name for t in TARGETS))
    whole = sum(target.share for target in TARGETS)
    counts = {target.name: max(1, round(options.inputs * target.share / whole)) for target in chosen}
    kept = options.out / "fuzz.json" if options.out else None
    rows = {row["target"]: row for row in read_json(kept)} if kept and kept.exists() and options.only else {}
    about = {"seed": options.seed, "commit": git_commit(), "date": date.today().isoformat()}
    failed = []
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    with tqdm(total=sum(counts.values()), unit=" inputs", disable=False) as progress:
        for number, target in enumerate(chosen):
            progress.set_description(target.name)
            folder = scratch / str(number)
            folder.mkdir()
            count = run_target(target, folder, counts[target.name], options.seed, progress)
            rows[target.name] = asdict(count) | about
            if count.failure:
                failed.append(f"{target.name}, last input in {folder}:\n{count.failure}")
            else:
                shutil.rmtree(folder)
    ordered = [rows[target.name] for target in TARGETS if target.name in rows]
    text = report(ordered)
    print(text)
    if kept:
        write_result(options.out, "fuzz", text, ordered)
    if failed:
        sys.exit("\n\n".join(failed))
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
