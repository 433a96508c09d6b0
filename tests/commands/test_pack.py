"""The verb; the packs themselves are tested in test_data_pack.py, the command line in test_audit.py."""

from pathlib import Path
from typing import Any

import pytest
from small_sets import SEVEN, rafdb_official

from fer_voting.config import compose_config
from fer_voting.pack import pack


def configuration(tmp_path: Path, **values: Any) -> dict[str, Any]:
    node = compose_config(["dataset=rafdb", f"output_dir={tmp_path / 'outputs'}"]).dataset
    return {"dataset": {k: v for k, v in node.items() if k != "augment"} | {"root": str(tmp_path / "raf")} | values}


def test_packing_twice_packs_once(tmp_path: Path) -> None:
    rafdb_official(tmp_path / "raf", {"train": dict.fromkeys(SEVEN, 3), "test": dict.fromkeys(SEVEN, 2)})
    (tmp_path / "raf" / "Image" / "aligned" / "test_0001_aligned.jpg").unlink()
    first = pack(configuration(tmp_path))
    assert (first["images"], first["problems"]) == (34, 1)
    made = (Path(first["folder"]) / "images.npy").stat().st_mtime_ns
    again = pack(configuration(tmp_path))
    assert (Path(again["folder"]) / "images.npy").stat().st_mtime_ns == made
    assert again["folder"] == first["folder"]
    assert first["mib"] == pytest.approx(34 * 48 * 48 * 3 / 2**20, abs=0.1)


def test_packing_can_stop_at_the_first_bad_file(tmp_path: Path) -> None:
    rafdb_official(tmp_path / "raf", {"train": dict.fromkeys(SEVEN, 3), "test": dict.fromkeys(SEVEN, 2)})
    (tmp_path / "raf" / "Image" / "aligned" / "test_0001_aligned.jpg").unlink()
    with pytest.raises(ValueError, match=r"missing: .*test_0001_aligned.*\(dataset\.on_error=raise\)"):
        pack(configuration(tmp_path, on_error="raise"))
