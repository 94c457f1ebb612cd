"""The worker of persianmind/data/build, slowed down: a JSON request per line on standard input, an answer per
line on standard output. Small batches and a pause after each, so that readers can overtake it anywhere."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

from persianmind.data.build import pipeline
from persianmind.data.build.priority import build_order
from persianmind.data.build.worker import build_all
from persianmind.recipe import Recipe
from tests.data.helpers import make_job


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        pipeline.BATCH_RECORDS = request["batch_records"]
        pause = partial(time.sleep, request["pause_s"])
        recipe = Recipe.model_validate(request["recipe"])
        tokenizer, out = Path(request["tokenizer"]), Path(request["out"])
        jobs = [make_job(recipe, name, tokenizer, out / name) for name in recipe.sources]
        whole = build_all(jobs, build_order(recipe), lambda step, pause=pause: pause())
        print(json.dumps({"whole": whole}), flush=True)


if __name__ == "__main__":
    main()
