"""Archives of arrays that anyone may have written; hostile ones are in tests/test_hostile.py."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from fer_voting.system.arrays import read_npz


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(["x", "yz"])}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", allow_pickle=False, **arrays)
        found = read_npz(tmp_path / "x.npz", "a", "b")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert (found[name] == array).all()


def test_what_cannot_be_read_says_why_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "gone.npz")
    np.savez(tmp_path / "x.npz", a=[1])
    with pytest.raises(ValueError, match=r"x\.npz is damaged: it lacks the array b"):
        read_npz(tmp_path / "x.npz", "a", "b")
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("names.npy", "no array")  # NumPy hands it on as bytes
    with pytest.raises(ValueError, match="it lacks the array names"):
        read_npz(tmp_path / "x.npz", "a")
    whole = (tmp_path / "x.npz").read_bytes()
    for content in (b"", whole[:-30], whole.replace(b"descr", b"bescr"), b"x" * 100):
        (tmp_path / "y.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"y\.npz is damaged") as error:
            read_npz(tmp_path / "y.npz", "a")
        assert "\n" not in str(error.value)
