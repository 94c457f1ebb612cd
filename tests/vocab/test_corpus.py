"""The whole promise on real Persian of several kinds, through the benchmark that measures it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.corpus import TEXT_FOLDER

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "vocab.py"
TEXT = ("package://hafez", "package://gettext-fa", str(TEXT_FOLDER))
NEW_TOKENS = 5_000


@pytest.mark.integration
def test_thousands_of_pieces_on_a_sentencepiece_base() -> None:
    command = [sys.executable, BENCHMARK, "--part", "sentencepiece", "--no-speed"]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--new-tokens", str(NEW_TOKENS), "--text", *TEXT],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ids"] == 32_000 + NEW_TOKENS
    assert found["fertility_base"] > 4 > 1.6 >= found["fertility"]
    assert found["documents"] > 2_800
    assert found["english_sentences"] == 1_000
    for difference in ("not_round_trip", "reference_differs", "english_changed", "code_urls_changed"):
        assert found[difference] == 0, difference
    assert found["build_peak_gib"] < 3
