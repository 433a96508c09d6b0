"""The report: what it says, and how a browser shows it."""

import html
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.chromium import CHROMIUM, needs_chromium
from helpers.runs import COMMIT, make_run

from fer_voting.report import main
from fer_voting.results.compare import Accuracy, Method
from fer_voting.results.load import load_runs
from fer_voting.results.page import _cards, build_page

pytestmark = pytest.mark.slow

LABELS = [0, 1, 2, 3, 4, 5, 6] * 4


def wrong_at(*images: int) -> list[int]:
    return [(label + 1) % 7 if i in images else label for i, label in enumerate(LABELS)]


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    for seed in (0, 1):
        for split, wrong in (("baseline", [0, 1, 2, 3]), ("m1", [4 + seed])):
            words = ["dataset=faces", "model.width=4", f"seed={seed}", f"split={split}"]
            make_run(folder, words, {"val": wrong_at(*wrong), "test": wrong_at(*wrong, 20)}, LABELS)
    words = ["dataset=faces", "model.width=4", "split=m1", "seed=0", "refit=true"]
    make_run(folder, words, {"test": LABELS}, LABELS)
    make_run(folder, ["dataset=affectnet", "split=baseline", "seed=0"], {"val": wrong_at(3)}, LABELS)
    failed = make_run(folder, ["dataset=affectnet", "split=m1", "seed=0"], {"val": LABELS}, LABELS)
    failed.write_result({"status": "failed", "error": 'OSError: <no> space & "such"'})
    (folder / "runs" / "not a run").mkdir()
    return folder


@pytest.fixture(scope="module")
def page(output_dir: Path) -> str:
    return build_page(load_runs(output_dir))


def cells(page: str, start: str) -> list[str]:
    """Text of the cells of the first table row whose head begins so."""
    for line in re.findall(r"<tr>.*</tr>", page):
        texts = [html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd].*?</t[hd]>", line)]
        if texts[0].startswith(start):
            return texts
    raise AssertionError(f"no row begins with {start}")


def test_page_asks_for_nothing_from_elsewhere(page: str) -> None:
    outside = [url for url in re.findall(r"""(?:src|href)=["']([^"']*)""", page) if not url.startswith(("#", "data:"))]
    assert outside == []
    assert "<script" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_sections_stand_apart_and_synthetic_faces_are_called_so(page: str) -> None:
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "AffectNet",
        "drawn faces (synthetic), variant width4",
        "Differences between the sections",
        "Folders that can't be read",
    ]
    assert page.count("Synthetic faces: these figures say nothing about people.") == 1
    assert "6 of 8 runs finished." in page


def test_metrics_are_those_of_the_runs(page: str) -> None:
    faces = page[page.index('id="faces-width4"') :]
    assert cells(faces, "crops after module 1")[:3] == ["crops after module 1", "2 of 2", "96.43 ± 0.00"]
    assert cells(faces, "baseline")[:3] == ["baseline", "2 of 2", "85.71 ± 0.00"]
    assert cells(faces, "crops after module 1, soft vote")[:5] == [
        "crops after module 1, soft vote",
        "baseline",
        "2",
        "28",
        "+10.71",
    ]
    at_a_glance = faces[: faces.index("<h3>")]
    assert "crops after module 1, soft vote, 2 runs: too few seeds for a conclusion" in at_a_glance
    assert "+10.71" not in at_a_glance
    refit = faces[faces.index("Test accuracy after refit") :]
    assert cells(refit, "crops after module 1")[1:] == ["1 of 2", "100.00"]
    # Test, baseline: images 0 (neutral) and 20 (anger) are wrong among others: 3 of 4 recognised.
    assert cells(faces[faces.index("Recall of each class") :], "neutral")[1:] == ["100.0", "75.0"]
    assert cells(faces[faces.index("Recall of each class") :], "anger")[1:] == ["75.0", "75.0"]
    confusion = faces[faces.index("Confusion matrices") :]
    assert cells(confusion, "decision")[1:3] == ["neutral", "happy"]
    # m1: image 20, an anger, is taken for neutral under both seeds.
    assert cells(confusion, "neutral")[1:] == ["100.0", "0.0", "0.0", "0.0", "0.0", "0.0", "25.0"]


def test_missing_runs_are_listed_and_their_reasons_are_text(page: str) -> None:
    affectnet = page[: page.index('id="faces-width4"')]
    assert "failed: OSError: &lt;no&gt; space &amp; &#34;such&#34; (1): affectnet-m1-seed0" in affectnet
    assert cells(affectnet, "affectnet-m1-seed0")[1] == 'failed: OSError: <no> space & "such"'
    assert cells(affectnet, "crops after module 1")[2] == "failed"
    assert "not run (2): affectnet-m2-seed0, affectnet-m3-seed0" in affectnet
    assert "python -m fer_voting.train -m dataset=affectnet" in affectnet
    assert "not a run: damaged: `name` (=&#39;not a run&#39;) must consist of letters" in page


def test_configuration_environment_and_commit(page: str) -> None:
    faces = page[page.index('id="faces-width4"') : page.index('id="between"')]
    configuration = faces[faces.index("Configuration:") :]
    assert cells(configuration, "model.width") == ["model.width", "64", "4"]
    assert "trainer.precision" not in configuration
    assert "split.name" not in configuration
    environment = configuration[configuration.index("Environment") :]
    assert cells(environment, "commit") == ["commit", COMMIT]
    assert cells(environment, "device") == ["device", "a made-up device"]
    assert cells(environment, "training time")[1] == "8 min in all"
    between = page[page.index('id="between"') :]
    assert cells(between, "scheduler.lr_gamma_per_epoch")[1:] == ["0.65", "0.85"]


def test_command_writes_one_file(output_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a folder" / "page.html"
    main(["--output-dir", str(output_dir), "--out", str(out)])
    assert capsys.readouterr().out == f"8 runs: {out}\n"
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    assert out.stat().st_size < 1_000_000


def test_without_runs_it_says_how_to_get_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"there are no runs in .* yet: `make demo`"):
        main(["--output-dir", str(tmp_path)])
    with pytest.raises(SystemExit):
        main(["--output-dir", str(tmp_path / "gone")])
    assert "there is no output folder" in capsys.readouterr().err


def test_differences_are_shown_at_a_glance_from_three_seeds_on(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        for split, wrong in (("baseline", [0, 1, 2, 3]), ("m1", [4 + seed])):
            words = ["dataset=faces", "model.width=4", f"seed={seed}", f"split={split}"]
            make_run(tmp_path, words, {"val": wrong_at(*wrong)}, LABELS)
    page = build_page(load_runs(tmp_path))
    at_a_glance = page[page.index("<section") : page.index("<h3>")]
    assert "+10.71" in at_a_glance
    assert "over the baseline" in at_a_glance
    assert "too few seeds" not in at_a_glance


def test_a_damaged_curve_is_listed_and_leaves_the_rest(tmp_path: Path) -> None:
    words = ["dataset=faces", "model.width=4", "split=m1", "seed=0"]
    run = make_run(tmp_path, words, {"val": LABELS}, LABELS)
    run.metrics_file.write_text("epoch,train/loss\n0,#\n")
    page = build_page(load_runs(tmp_path))
    assert "Training loss by epoch" not in page
    assert "no curve, metrics.csv is damaged (1): faces-m1-width4-seed0" in page
    assert cells(page, "crops after module 1")[2] == "100.00"


# --- in a browser -----------------------------------------------------------------------------------------------

PROBE = """
<script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, root = page.documentElement;
  const boxes = [...page.querySelectorAll(".plot svg")].map(svg => svg.getBoundingClientRect());
  document.querySelector("#probe").textContent = JSON.stringify({
    images: [...page.images].map(image => image.complete && image.naturalWidth > 0),
    svgs: boxes.map(box => [Math.round(box.width), Math.round(box.height)]),
    texts: page.querySelectorAll(".plot svg text").length,
    overflow: root.scrollWidth - root.clientWidth,
    background: getComputedStyle(page.body).backgroundColor,
    ink: getComputedStyle(page.querySelector(".plot svg text")).fill,
  });
});
</script>
"""


def open_in_chromium(page: str, folder: Path, width: int, *switches: str) -> tuple[dict[str, Any], list[str]]:
    """Measurements of a page of that many pixels from inside, and the errors that the browser reports."""
    assert CHROMIUM is not None
    outer = folder / "outer.html"
    style = f'style="border:0;width:{width}px;height:900px"'
    outer.write_text(
        f'<!DOCTYPE html><meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f'<pre id="probe"></pre><iframe {style} srcdoc="{html.escape(page)}"></iframe>{PROBE}'
    )
    done = subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *(
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
            ),
            *("--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000"),
            *switches,
            *("--virtual-time-budget=5000", "--dump-dom", outer.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found[1])), errors


@needs_chromium
def test_browser_shows_every_plot_on_a_phone(page: str, tmp_path: Path) -> None:
    seen, errors = open_in_chromium(page, tmp_path, 375)
    assert errors == []
    assert seen["images"] == []  # plots are SVG elements
    assert len(seen["svgs"]) == page.count("<svg")
    assert all(300 < width <= 375 and height > 200 for width, height in seen["svgs"])
    assert seen["texts"] > 20
    assert seen["overflow"] == 0
    assert seen["background"] == "rgb(255, 255, 255)"
    assert seen["ink"] == "rgb(28, 32, 38)"


@needs_chromium
def test_browser_follows_the_dark_scheme(page: str, tmp_path: Path) -> None:
    seen, errors = open_in_chromium(page, tmp_path, 1200, "--blink-settings=preferredColorScheme=0")
    assert errors == []
    assert seen["background"] == "rgb(20, 23, 27)"
    assert seen["ink"] == "rgb(231, 234, 238)"
    assert seen["overflow"] == 0


@needs_chromium
def test_the_probe_sees_what_is_wrong(page: str, tmp_path: Path) -> None:
    broken = page.replace("</main>", '<img src="data:image/png;base64,AAAA"><script>nothing()</script></main>')
    seen, errors = open_in_chromium(broken, tmp_path, 375)
    assert seen["images"] == [False]
    assert any("nothing is not defined" in error for error in errors)


def test_folds_of_one_seed_are_no_seeds() -> None:
    folds = Accuracy(Method("m1", "soft"), "val", {0: 0.5}, 0.5, None, {}, 5, dict.fromkeys(range(5), 0.5))
    group: Any = SimpleNamespace(finished=lambda split: [])
    expected = "crops after module 1, soft vote, 5 runs: too few seeds for a conclusion"
    assert _cards(group, [folds], []) == [("highest on validation", "50.00 %", expected)]
