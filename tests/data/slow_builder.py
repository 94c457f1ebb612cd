"""The builder of persianmind/data/builder.py, slowed down: a JSON request a line on standard input, an answer
a line on standard output. Small batches and a pause after each, so that readers can overtake it anywhere."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

from persianmind.data.build import pipeline as prepare_module
from persianmind.data.build.worker import build_all
from persianmind.recipe import Recipe


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        prepare_module.BATCH_RECORDS = request["batch_records"]
        pause = partial(time.sleep, request["pause_s"])
        recipe = Recipe.model_validate(request["recipe"])
        tokenizer, out = Path(request["tokenizer"]), Path(request["out"])
        whole = build_all(recipe, list(recipe.sources), tokenizer, out, lambda step, pause=pause: pause())
        print(json.dumps({"whole": whole}), flush=True)


if __name__ == "__main__":
    main()
