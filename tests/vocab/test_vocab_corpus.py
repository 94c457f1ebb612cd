"""The whole promise on 38 MB of real Persian text, through the benchmark that measures it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from vocab_helpers import DATA

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "vocab.py"


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "corpus").is_dir(), reason="real Persian text is not on this machine")
def test_ten_thousand_pieces_on_a_sentencepiece_base() -> None:
    command = [sys.executable, BENCHMARK, "--part", "sentencepiece", "--no-speed", "--new-tokens", "10000"]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--text", DATA / "corpus"], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ids"] == 42_000
    assert found["fertility_base"] > 4 > 1.45 >= found["fertility"]
    assert found["documents"] == 5_000
    assert found["english_sentences"] == 1_000
    for difference in ("not_round_trip", "fast_slow_differ", "english_changed", "code_urls_changed"):
        assert found[difference] == 0, difference
    assert found["build_cpu_s"] < 180
    assert found["build_peak_gib"] < 3
