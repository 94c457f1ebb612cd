"""The reference result: two runs of a million tokens, with and without English, and their tables.

    python benchmarks/reference/results.py            both runs (where they were cut they go on), then tables
    python benchmarks/reference/results.py --tables   tables of what benchmarks/reference/results/ holds

Writes what a table needs of each run to benchmarks/reference/results/NAME.json, and tables into
docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.lib.results_tables import tables
from persianmind.common.atomic import write_json
from persianmind.common.checksum import read_checked

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- tables: benchmarks/reference/results.py -->", "<!-- end of the tables -->"
WITHOUT_ENGLISH = [
    "stages.0.sources={wiki: 0.55, voice: 0.23, manuals: 0.09, poems: 0.13}",
    "stages.1.sources={translate: 1.0}",
    "stages.2.sources={infer: 1.0}",
]
RUNS = {"with-english": [], "without-english": WITHOUT_ENGLISH}
KEPT = ("evaluation", "results", "new_tokens", "samples", "model", "energy", "versions", "finished")
KEPT_OF_ENERGY = ("kwh", "measured_ratio", "unknown")  # CO2 is the machine's grid, which no recipe knows


def main() -> None:
    """Runs what is not finished, keeps the figures, writes the page."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--tables", action="store_true", help="make the tables alone")
    parser.add_argument("--only", choices=RUNS, help="one of the two runs")
    arguments = parser.parse_args()
    for name, overrides in RUNS.items():
        if not arguments.tables and arguments.only in (None, name):
            run(name, overrides)
    made = [name for name in RUNS if kept(name).is_file()]
    found = {name: json.loads(kept(name).read_text(encoding="utf-8")) for name in made}
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(found)}\n{END}{after}", encoding="utf-8")


def kept(name: str) -> Path:
    """The figures of one run that the tables are made of."""
    return FOLDER / "results" / f"{name}.json"


def run(name: str, overrides: list[str]) -> None:
    """Trains by the real launcher on two ranks; the same call resumes."""
    output = ROOT / "runs" / f"reference-{name}"
    command = [
        str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", "2", "launcher/train.py",
        "--deepspeed", "ds_configs/zero2.json", "--recipe", str(FOLDER / "recipe.yaml"),
        "--output", str(output), *overrides,
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True)
    results = read_checked(output / "results.json")
    seconds = tokens = 0.0
    for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        step = json.loads(line)
        seconds, tokens = seconds + step["seconds"], tokens + step["tokens"]
    figures = {key: results[key] for key in KEPT}
    figures["energy"] = (
        {key: figures["energy"].get(key) for key in KEPT_OF_ENERGY} if figures["energy"] else None
    )
    write_json(kept(name), {**figures, "training": {"seconds": seconds, "tokens": tokens}})


if __name__ == "__main__":
    main()
