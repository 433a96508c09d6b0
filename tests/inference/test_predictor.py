"""Ray Data gives the rows of one process."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from helpers.networks import write_checkpoint
from helpers.processes import start
from helpers.train import REPO
from helpers.videos import grey_frames, write_video

from fer_voting.predict import main as predict


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
