"""The pages in a real browser: nothing asked for, nothing complained of, readable at every width and in both
themes, accessible by axe-core's rules, whole on paper."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from persianmind.report.compare import write_comparison
from persianmind.report.page import write_report
from persianmind.run.log import update_results
from persianmind.run.records import SampleText
from tests.report.built_run import build_run
from tests.support.browser import DARK, LIGHT, ROOT, Browser, find_program

pytestmark = pytest.mark.more

WIDTHS = (390, 820, 1280)
SMALLEST_TEXT_PX = 10


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return Browser.find(tmp_path)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run, and the page that compares it with another."""
    folder = tmp_path_factory.mktemp("pages")
    run, other = (build_run(folder / name, seed=seed) for name, seed in (("run", 1), ("other", 2)))
    samples = [
        SampleText(prompt="سلام", text=text, stage=stage)
        for stage, text in (("base", "Hello"), ("pretrain", "پایتخت ایران تهران است. " * 6))
    ]
    update_results(run, samples=samples)
    comparison = write_comparison([run.path, other.path], folder / "comparison.html")
    return {"run": write_report(run.path), "comparison": comparison}


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_nothing_is_asked_for_and_nothing_complained_of(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    assert browser.complaints(pages[name]) == ([], set())


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "comparison"])
def test_it_is_accessible_and_fits_at_every_width_in_both_themes(
    browser: Browser, pages: dict[str, Path], name: str, width: int, theme: int
) -> None:
    found = browser.probe(pages[name], width, theme)
    assert found["violations"] == [] and found["said"] == []
    assert found["overflow_px"] <= 0 and found["smallest_chart_text_px"] >= SMALLEST_TEXT_PX
    assert found["fonts"] == (["Vazirmatn Arabic"] if name == "run" else [])  # loaded where Persian is shown


def test_a_page_with_faults_is_found_out(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    """The control of the tests above."""
    html = pages["run"].read_text(encoding="utf-8").replace("font-src data:", "font-src data:; img-src *")
    faults = (
        '<img src="http://127.0.0.1:59999/x.png"><p style="color:#ccc;background:#fff;width:3000px">pale</p>'
    )
    bad = tmp_path / "bad.html"
    bad.write_text(html.replace("</main>", f"{faults}<script>1</script></main>"), encoding="utf-8")
    console, asked = browser.complaints(bad)
    assert console and "http://127.0.0.1:59999/x.png" in asked
    found = browser.probe(bad, 1280, LIGHT)
    rules = {violation.partition(":")[0] for violation in found["violations"]}
    assert {"image-alt", "color-contrast"} <= rules and found["overflow_px"] > 1000


def test_the_readme_s_picture_is_made_by_its_script(pages: dict[str, Path], tmp_path: Path) -> None:
    if find_program() is None:
        pytest.skip("no chromium on this machine: apt-get install -y chromium")
    script, out = ROOT / "benchmarks" / "reference" / "picture.py", tmp_path / "images" / "report.png"
    command = [sys.executable, str(script), str(pages["run"].parent), "--out", str(out)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    size = struct.unpack(">2I", out.read_bytes()[16:24])
    assert size == struct.unpack(">2I", (ROOT / "docs" / "images" / "report.png").read_bytes()[16:24])


def test_it_prints_and_can_be_pictured(browser: Browser, pages: dict[str, Path]) -> None:
    printed = browser.pdf(pages["run"])
    assert printed.startswith(b"%PDF") and len(printed) > 50_000
    for theme in (LIGHT, DARK):
        assert browser.screenshot(pages["run"], 390, theme).startswith(b"\x89PNG")
