"""A sweep's table says which of its rows must not be compared."""

from pathlib import Path

import pytest
from helpers.runs import make_run

from fer_voting.results.sweep_table import sweep_table
from fer_voting.runs.sweeps import Sweep

LABELS = [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("fingerprints", "noted"), [(("aa" * 16, "bb" * 16), True), (("aa" * 16, "aa" * 16), False)])
def test_runs_on_other_data(tmp_path: Path, fingerprints: tuple[str, str], noted: bool) -> None:
    runs = [
        make_run(tmp_path, ["dataset=faces", f"split={split}"], {"val": LABELS}, LABELS, data_fingerprint=fingerprint)
        for split, fingerprint in zip(("m1", "m2"), fingerprints, strict=True)
    ]
    sweep = Sweep(tmp_path / "sweeps" / "mine")
    sweep.write([], [{"overrides": [], "run": run.name, "voting": "soft"} for run in runs])
    table, unfinished, _ = sweep_table(sweep)
    assert unfinished == 0
    note = "Not comparable: runs on other data of faces, fingerprints aaaaaaaaaaaa in faces-m1-seed0, bbbbbbbbbbbb in"
    assert (note in table) == noted


def test_a_vote_of_ones_own_has_a_column(tmp_path: Path) -> None:
    run = make_run(tmp_path, ["dataset=faces", "split=m1"], {"val": LABELS}, LABELS)
    result = run.result()
    assert result is not None
    run.write_result(result | {"votes": result["votes"] | {"median": result["votes"]["soft"]}})
    sweep = Sweep(tmp_path / "sweeps" / "mine")
    sweep.write([], [{"overrides": [], "run": run.name, "voting": "median"}])
    assert sweep_table(sweep)[2].header[2:6] == ["val soft (%)", "val softprob (%)", "val hard (%)", "val median (%)"]
