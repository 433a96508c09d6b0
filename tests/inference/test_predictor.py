"""Every input of a batch has a row, or a reason; Ray Data gives the rows of one process."""

import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from helpers.networks import write_checkpoint
from helpers.processes import start
from helpers.train import REPO
from helpers.videos import grey_frames, write_video
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fer_voting.predict import main as predict

KINDS = ("good", "text", "empty", "cut off", "dangling", "pipe", "copy is blocked")
NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1, max_size=8)


def jpeg() -> bytes:
    file = io.BytesIO()
    PIL.Image.effect_noise((40, 30), 60).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("net") / "net.ckpt")


@settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(files=st.lists(st.tuples(st.sampled_from(KINDS), NAMES, st.booleans()), max_size=8))
def test_a_batch_of_any_files_has_a_row_or_a_reason_of_each(checkpoint: Path, files: list[tuple[str, str, bool]]):
    """Good and bad files, some with names of 255 bytes, and copies in whose place a folder lies."""
    content = {"text": b"no photo", "empty": b"", "cut off": jpeg()[:-200]}
    with tempfile.TemporaryDirectory() as folder:
        root, expected = Path(folder) / "in", {}
        root.mkdir()
        for number, (kind, name, is_long) in enumerate([("good", "", False), *files]):
            stem = f"x{number}{name}"
            stem += "n" * (251 - len(stem.encode())) if is_long else ""
            path = root / f"{stem}.jpg"
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "dangling":
                path.symlink_to("nowhere")
            else:
                path.write_bytes(content.get(kind, jpeg()))
            if kind == "copy is blocked":
                (Path(folder) / "drawn" / path.name).mkdir(parents=True)
            if kind != "pipe":  # no file: the log counts it
                outcome = {"good": {"ok"}, "copy is blocked": {"ok", "not_written"}}.get(kind, {"unreadable"})
                expected[str(path)] = outcome
        out = Path(folder) / "rows.jsonl"
        options = ["--aligned", "--checkpoint", str(checkpoint), "--out", str(out), "--draw", f"{folder}/drawn"]
        predict([str(root), *options])
        statuses: dict[str, set[str]] = {}
        for row in map(json.loads, out.read_text().splitlines()):
            statuses.setdefault(row["input"], set()).add(row["status"].partition(":")[0])
    assert statuses == expected


@pytest.mark.slow
def test_the_rows_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By the command line, on a Ray of this machine: photos, a video, what cannot be read, in the same order."""
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(8):
        pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{seed}.png")
    write_video(folder / "3a.mp4", grey_frames(range(0, 250, 5)), range(0, 2000, 40))
    (folder / "5a.jpg").write_text("no photo")
    write_checkpoint(tmp_path / "net.ckpt")
    words = ["in", "--aligned", "--checkpoint", "net.ckpt"]
    # Relative paths, which the workers have to find too; Ray keeps a token below the home folder.
    on_ray = start(
        *("fer_voting.predict", *words, "--out", "ray.jsonl", "--ray", "local", "--draw", "drawn"),
        printed=tmp_path / "printed",
        cwd=tmp_path,
        **{"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO), "HOME": str(tmp_path)},
    )
    monkeypatch.chdir(tmp_path)
    predict([*words, "--out", "one.jsonl"])
    on_ray.join(240)
    assert on_ray.exitcode == 0, (tmp_path / "printed").read_text()
    one, ray = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()] for name in ("one.jsonl", "ray.jsonl")
    )
    assert len(one) == 8 + 50 + 1
    assert len(one) == len(ray)
    for ours, theirs in zip(one, ray, strict=True):
        for key, value in ours.items():
            assert theirs[key] == (pytest.approx(value, abs=2e-6) if isinstance(value, float) else value)
    assert len(list((tmp_path / "drawn").iterdir())) == 9
