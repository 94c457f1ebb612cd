"""The picture of the report in the READMEs: the first screen of a finished run's page, in its light theme.

    make demo
    python benchmarks/reference/picture.py            runs/demo -> docs/images/report.png

The page is made anew by the code that is here; the picture is what headless Chromium shows of it.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from PIL import Image  # tensorboard brings it

from persianmind.common.atomic import write_bytes
from persianmind.report.page import write_report
from tests.support.browser import LIGHT, Browser, find_program

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "images" / "report.png"
WIDTH_PX, HEIGHT_PX = 1000, 1790  # down to the end of the held-out scores and their chart
COLOURS = 64  # of a page that is text and a few tints; a third of the bytes
MOST_BYTES = 150_000  # a README is read over slow lines, too


def main() -> None:
    """Writes the page and its picture.

    Raises:
        SystemExit: there is no Chromium, or the picture is too large.
        RunFolderError: no run lies there.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("run", nargs="?", type=Path, default=ROOT / "runs" / "demo", help="a finished run")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the PNG")
    arguments = parser.parse_args()
    program = find_program()
    if program is None:
        sys.exit("no chromium on this machine: apt-get install -y chromium")
    page = write_report(arguments.run)
    with tempfile.TemporaryDirectory() as folder:
        picture = Browser(program, Path(folder)).screenshot(page, WIDTH_PX, LIGHT, HEIGHT_PX)
    picture = with_few_colours(picture)
    if len(picture) > MOST_BYTES:
        sys.exit(
            f"the picture has {len(picture):,} bytes, at most {MOST_BYTES:,} are wanted: lower HEIGHT_PX"
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(arguments.out, picture)


def with_few_colours(picture: bytes) -> bytes:
    """The same PNG with a palette."""
    few = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    few.save(packed, "PNG", optimize=True)
    return packed.getvalue()


if __name__ == "__main__":
    main()
