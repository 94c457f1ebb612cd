"""How many files a batch of text passes through, from raw records to the loss, and how often it returns.

A document with a marked word is built into a shard and trained on by one process. Every call of a function of
the package that is handed the mark (in a string, in token ids, in anything that holds them) is a stop. Each
way from one file to another counts once; a way into a file that was entered before is a return.

    python benchmarks/call_path.py
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MARK = "".join(chr(0x06F0 + int(digit)) for digit in "739173917391")  # in no other text
# Within these calls the batch is followed: the build of a source, and the steps of a stage.
ENTRIES = {"build_steps", "train_stage"}


class Tracer:
    """Records (caller file, callee file) of every call that carries the mark, in order of first
    occurrence."""

    def __init__(self, package: Path) -> None:
        self.package = f"{package}/"
        self.vocab: Path | None = None
        self.ids: list[int] = []
        self.edges: dict[tuple[str, str], None] = {}
        self.start = ""

    def __call__(self, frame: FrameType, event: str, value: Any) -> None:
        if event not in ("call", "return") or not frame.f_code.co_filename.startswith(self.package):
            return
        if frame.f_code.co_name.startswith("<") or not self._inside(frame):
            return
        if event == "return":
            if self._marked(value) and (caller := self._caller(frame)) and caller != self._file(frame):
                self.edges.setdefault((self._file(frame), caller))
            return
        count = frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount
        names = [n for n in frame.f_code.co_varnames[: count + 2] if n in frame.f_locals and n != "self"]
        if any(self._marked(frame.f_locals[name]) for name in names):
            here = self._file(frame)
            caller = self._caller(frame)
            if caller and caller != here:
                self.edges.setdefault((caller, here))
            elif not self.start:
                self.start = here

    def _inside(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code.co_name in ENTRIES and frame.f_code.co_filename.startswith(self.package):
                return True
            frame = frame.f_back
        return False

    def _caller(self, frame: FrameType) -> str:
        above = frame.f_back
        while above is not None and not above.f_code.co_filename.startswith(self.package):
            above = above.f_back
        return self._file(above) if above is not None else ""

    def _file(self, frame: FrameType) -> str:
        return frame.f_code.co_filename.removeprefix(self.package)

    def _has_ids(self, values: Any) -> bool:
        import numpy as np

        if not self.ids and self.vocab is not None and (self.vocab / "tokenizer.json").is_file():
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(self.vocab / "tokenizer.json"))
            self.ids = tokenizer.encode(f"a {MARK}", add_special_tokens=False).ids[-8:]
        flat = np.asarray(values).reshape(-1)
        if not self.ids or len(flat) < len(self.ids):
            return False
        windows = np.lib.stride_tricks.sliding_window_view(flat, len(self.ids))
        return bool((windows == np.array(self.ids)).all(axis=1).any())

    def _marked(self, value: Any, depth: int = 0) -> bool:
        import numpy as np

        if isinstance(value, str):
            return MARK in value
        if isinstance(value, bytes):
            return MARK.encode() in value or MARK.encode("unicode_escape") in value
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            return self._has_ids(value)
        if type(value).__name__ == "Tensor" and not value.is_floating_point() and value.device.type == "cpu":
            return self._marked(value.detach().numpy())
        if depth > 4:
            return False
        if isinstance(value, dict):
            return any(self._marked(inner, depth + 1) for inner in list(value.values())[:64])
        if isinstance(value, list | tuple):
            if value and isinstance(value[0], int):
                return self._has_ids(np.array(value[:4096]))
            return any(self._marked(inner, depth + 1) for inner in value[:600])
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return any(
                self._marked(getattr(value, f.name, None), depth + 1) for f in dataclasses.fields(value)
            )
        return False


def report(edges: list[tuple[str, str]], start: str) -> dict[str, Any]:
    entered: dict[str, None] = {}
    returns = 0
    for caller, callee in edges:
        entered.setdefault(caller)
        if callee in entered:
            returns += 1
        entered.setdefault(callee)
    return {"files": len(entered), "returns": returns, "path": [f"{a} -> {b}" for a, b in edges]}


RECIPE = """
name: path
base: random://llama
seed: 7
sources:
  text: {uri: %s, language: fa, licence: none}
data: {seq_len: 64, shuffle_block_sequences: null}
vocab: {new_tokens: 20, sources: [text]}
train: {global_batch_size: 2, micro_batch_size: 1, precision: fp32, self_tests: false}
stages:
  - {name: pretrain, sources: {text: 1.0}, epochs: 1}
energy: {enabled: false}
export: {enabled: false}
"""


def main() -> None:
    import os

    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.jsonl"
        with text.open("w", encoding="utf-8") as handle:
            for number in range(40):
                words_of = "کتاب‌های فارسی را می‌خوانم و می‌نویسم " * 3 + f"شماره {number}"
                mark = f" {MARK}" if number == 7 else ""
                handle.write(json.dumps({"text": words_of + mark}, ensure_ascii=False) + "\n")
        recipe = Path(folder) / "path.yaml"
        recipe.write_text(RECIPE % text, encoding="utf-8")
        tracer = Tracer(ROOT / "persianmind")
        tracer.vocab = Path(folder) / "run" / "vocab"
        run(recipe, Path(folder) / "run", tracer)
    found = report(list(tracer.edges), tracer.start)
    print("\n".join(found.pop("path")))
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


def run(recipe: Path, out: Path, tracer: Tracer) -> None:
    """One process, prepared, built and trained under the tracer."""
    from persianmind.engine.ranks import ranks_from_environment
    from persianmind.engine.registry import backend
    from persianmind.train.command import read_request, run_request

    backend().prepare_environment()
    request = read_request(["--recipe", str(recipe), "--output", str(out)])
    assert request is not None
    sys.setprofile(tracer)
    try:
        run_request(request, ranks_from_environment(), lambda path: path)
    finally:
        sys.setprofile(None)


if __name__ == "__main__":
    main()
