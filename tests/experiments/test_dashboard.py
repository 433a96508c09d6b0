"""The dashboard: that its charts show what a run logs, and what becomes of it with and without a login."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import wandb
from helpers.train import TINY, train_here
from helpers.wandb_server import KEY, WandbServer

from experiments.dashboard import main
from fer_voting.runs.run import Run
from fer_voting.votes import VOTES

pytestmark = [
    pytest.mark.slow,
    # Not imported to find out: that takes a second of the quick tests, too.
    pytest.mark.skipif(find_spec("wandb_workspaces") is None, reason="the extra `dashboard` is not installed"),
]


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of everything that is no container, in JSON; of a list, the list's key."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield from leaves(child, name)
    elif isinstance(node, list):
        for child in node:
            yield from leaves(child, key)
    else:
        yield key, node


def logged(run: Run) -> tuple[set[str], set[str], dict[str, Any]]:
    """Names in the history and in the summary of a run's offline file, and its configuration."""
    (file,) = run.dir.glob("wandb/offline-run-*/run-*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json"]
    records = subprocess.run([*command, str(file)], capture_output=True, text=True, check=True).stdout
    history: set[str] = set()
    for line in records.splitlines():
        history |= json.loads(line).get("history", {}).get("item", {}).keys()
    summary = json.loads(subprocess.run([*command, "--summary", str(file)], capture_output=True, check=True).stdout)
    return history, set(summary["summary"]), summary["config"]


def test_every_chart_shows_what_a_run_logs(never_logged_in: pytest.MonkeyPatch, tmp_path: Path):
    options = [word for word in TINY if word != "logger=none"]
    train_here(tmp_path, *options, "split=m3", "logger=offline", "name=mine")
    history, summary, config = logged(Run(tmp_path, "mine"))
    variant = Run(tmp_path, "mine").config()["composition"]["variant"]
    wandb.teardown()  # the command is a process of its own
    never_logged_in.chdir(tmp_path)
    with WandbServer() as server:
        never_logged_in.setenv("WANDB_BASE_URL", server.url)
        never_logged_in.setenv("WANDB_API_KEY", KEY)
        main(["--datasets", "faces", "--variant", variant])
    (made,) = json.loads((tmp_path / "outputs" / "dashboard.json").read_text())
    written = made["specification"]["sections"]
    section = json.loads(server.views[0]["spec"])["section"]
    panels = {one["name"]: one["panels"] for one in section["panelBankConfig"]["sections"]}
    assert {name: len(charts) for name, charts in panels.items()} == {
        "Accuracy by split and vote": 2 * len(VOTES),
        "Memory against accuracy": 2,
        "Curves by split": len(VOTES) + 2,
        "Confusion matrices": 2 * len(VOTES),
        "Runs": 1,
    }
    assert {one["name"]: len(one["panels"]) for one in written} == {name: len(one) for name, one in panels.items()}
    lines = {value for key, value in leaves(panels["Curves by split"]) if key in ("metrics", "xAxis")}
    assert len(lines) == len(VOTES) + 3
    assert lines <= history
    bars = {value for key, value in leaves(panels["Accuracy by split and vote"]) if key == "metrics"}
    assert len(bars) == 2 * len(VOTES)
    assert bars <= summary
    points = {value for key, value in leaves(panels["Memory against accuracy"]) if key in ("xAxis", "yAxis")}
    assert len(points) == 3
    assert {name.removeprefix("summary:") for name in points} <= summary
    tables = {
        field["value"]
        for panel in panels["Confusion matrices"]
        for argument in panel["config"]["userQuery"]["queryFields"][0]["fields"]
        for field in argument.get("args", [])
    }
    assert len(tables) == 2 * len(VOTES)
    assert tables <= summary
    columns = [name.split(":", 1) for name in section["runSets"][0]["runFeed"]["columnOrder"]]
    assert {name for kind, name in columns if kind == "summary"} <= summary

    def value(key: str) -> Any:
        node: Any = config
        for name in key.replace(".value", "", 1).split("."):
            node = node[name]
        return node

    groups = {value for panel in panels.values() for key, value in leaves(panel) if key == "groupBy"}
    assert {value(key) for key in groups} == {config["composition"]["row"]}
    assert [value(name) for kind, name in columns if kind == "config"] == ["m3", 0]
    filters = section["runSets"][0]["filters"]["filters"]
    assert {one["key"]["name"]: one["value"] for one in filters} == {
        "dataset.value.name": "faces", "composition.value.variant": variant, "refit.value": False,
    }  # fmt: skip
    assert all(value(one["key"]["name"]) == one["value"] for one in filters)


def test_without_a_login_it_is_written(never_logged_in: pytest.MonkeyPatch, tmp_path: Path, capsys):
    out = tmp_path / "dashboard.json"
    main(["--out", str(out)])
    assert capsys.readouterr().out.splitlines() == [
        f"written: {out}",
        "not saved in W&B: there is no login (`wandb login`, or WANDB_API_KEY)",
    ]
    names = ["Splits and votes, AffectNet", "Splits and votes, RAF-DB"]
    assert [(one["name"], one["url"]) for one in json.loads(out.read_text())] == [(name, None) for name in names]


def test_with_a_login_it_is_saved_once_and_then_updated(never_logged_in: pytest.MonkeyPatch, tmp_path: Path, capsys):
    out = tmp_path / "dashboard.json"
    with WandbServer() as server:
        never_logged_in.setenv("WANDB_BASE_URL", server.url)
        never_logged_in.setenv("WANDB_API_KEY", KEY)
        for _ in range(2):
            main(["--datasets", "faces", "--out", str(out)])
    printed = capsys.readouterr()
    assert KEY not in printed.out + printed.err + out.read_text()
    first, second = server.views
    assert (first["entityName"], first["projectName"]) == ("me", "fer_voting")
    assert first["displayName"] == "Splits and votes, drawn faces"
    assert second["name"] == first["name"]
    assert "id" not in first
    assert second["id"] == "v"
    (made,) = json.loads(out.read_text())
    assert re.fullmatch(rf"{server.url}/me/fer_voting\?nw=\w+", made["url"])
    assert printed.out.count(f"saved: {made['url']}\n") == 2


def test_an_unreachable_server_is_one_line(never_logged_in: pytest.MonkeyPatch, tmp_path: Path, capsys):
    out = tmp_path / "dashboard.json"
    never_logged_in.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    never_logged_in.setenv("WANDB_API_KEY", KEY)
    main(["--datasets", "faces", "--out", str(out), "--timeout-seconds", "1"])
    written, problem = capsys.readouterr().out.splitlines()
    assert written == f"written: {out}"
    assert problem.startswith("not saved in W&B: ")
    assert len(json.loads(out.read_text())) == 1


def test_a_missing_extra_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(SystemExit):
        main([])
    assert "pip install -e '.[dashboard]'" in capsys.readouterr().err
