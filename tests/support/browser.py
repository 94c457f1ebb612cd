"""Headless Chromium, for pages of ours: what a reader's browser makes of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 240.0
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
BROWSER_ITSELF = "not an origin"  # what it looks up for itself; a page's own requests have one
LIGHT, DARK = 1, 0  # Chromium's preferredColorScheme

# Runs in the page; what it finds is the text of the only element that is left.
PROBE = """
const said = [];
addEventListener('error', e => said.push(String(e.message)));
addEventListener('load', () => document.fonts.ready.then(() => axe.run()).then(found => {
  const sizes = [...document.querySelectorAll('svg text')].filter(t => t.getClientRects().length).map(t => {
    const svg = t.ownerSVGElement;
    return parseFloat(getComputedStyle(t).fontSize) * svg.clientWidth / svg.viewBox.baseVal.width;
  });
  const answer = {
    violations: found.violations.map(v => v.id + ': ' + v.nodes[0].html.slice(0, 200)),
    overflow_px: document.documentElement.scrollWidth - innerWidth,
    smallest_chart_text_px: Math.min(...sizes),
    fonts: [...document.fonts].filter(f => f.status == 'loaded').map(f => f.family.replaceAll('"', '')),
    said: said,
  };
  document.documentElement.innerHTML = '<pre></pre>';
  document.querySelector('pre').textContent = 'FOUND' + JSON.stringify(answer) + 'FOUND';
}));
"""


def find_program() -> str | None:
    """The machine's Chromium, if it has one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass(frozen=True)
class Browser:
    """A Chromium with a profile of its own in `folder`."""

    program: str
    folder: Path

    @classmethod
    def find(cls, folder: Path) -> Browser:
        """The machine's; skips the test, with the line that installs it, where there is none."""
        program = find_program()
        if program is None:
            pytest.skip("no chromium on this machine: apt-get install -y chromium")
        if not AXE.is_file():
            pytest.skip(f"no axe-core in {AXE.parents[2]}: npm install --prefix .venv/axe axe-core@4.14.1")
        return cls(program, folder)

    def probe(self, page: Path, width: int, theme: int) -> dict[str, Any]:
        """What PROBE finds at a width, in a theme; without the page's policy, which forbids scripts."""
        html = POLICY.sub("", page.read_text(encoding="utf-8"))
        scripts = f"<script>{AXE.read_text(encoding='utf-8')}</script><script>{PROBE}</script>"
        copy = self.folder / "probe.html"
        copy.write_text(html.replace("<head>", f"<head>{scripts}", 1), encoding="utf-8")
        look = (f"--window-size={width},900", f"--blink-settings=preferredColorScheme={theme}")
        shown = self._run(copy, *look, "--virtual-time-budget=60000", "--dump-dom").stdout
        answer = shown.split("FOUND")[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        found: dict[str, Any] = json.loads(answer)
        return found

    def complaints(self, page: Path) -> tuple[list[str], set[str]]:
        """(messages on the console, addresses asked for) of the page as it is."""
        log = self.folder / "net.json"
        done = self._run(page, f"--log-net-log={log}", "--enable-logging=stderr", "--dump-dom")
        console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        started = re.findall(r'"initiator":"([^"]*)".*?"url":"(https?://[^"]+)"', log.read_text("utf-8"))
        return console, {address for initiator, address in started if initiator != BROWSER_ITSELF}

    def pdf(self, page: Path) -> bytes:
        """The page as it is printed."""
        out = self.folder / "page.pdf"
        self._run(page, f"--print-to-pdf={out}", "--no-pdf-header-footer")
        return out.read_bytes()

    def screenshot(self, page: Path, width: int, theme: int, height: int = 3000) -> bytes:
        """The first screens as a PNG of width x height pixels."""
        out = self.folder / f"page-{width}-{theme}.png"
        self._run(page, f"--screenshot={out}", f"--window-size={width},{height}", "--hide-scrollbars",
                  f"--blink-settings=preferredColorScheme={theme}")  # fmt: skip
        return out.read_bytes()

    def _run(self, page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        quiet = ("--disable-background-networking", "--disable-component-update", "--no-first-run")
        return subprocess.run(
            [self.program, "--headless", "--no-sandbox", "--disable-gpu", *quiet,
             f"--user-data-dir={self.folder / 'profile'}", *arguments, page.as_uri()],
            capture_output=True, text=True, check=True, timeout=TIMEOUT_S,
        )  # fmt: skip
