"""llama.cpp's server in a process of its own, over loopback: `with LlamaServer(path) as server`.

Run as a script it is that process: it prints the server's address and serves until its input ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.launch import ROOT


class LlamaServer:
    """Serves one GGUF with llama.cpp (the xllamacpp package).

    llama.cpp ends the whole process where a file is not to its liking; here that fails one test.
    """

    def __init__(self, gguf: Path, *, context: int = 1024) -> None:
        self._command = [sys.executable, "-m", "tests.support.llama_server", str(gguf), str(context)]

    def __enter__(self) -> LlamaServer:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = ""
        for line in self._process.stdout:
            if line.startswith("address "):
                self.address = line.split()[1]
                return self
        _, log = self._process.communicate(timeout=60)
        raise AssertionError(f"llama.cpp did not start:\n{log[-3000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate(timeout=60)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the server answers to a JSON request."""
        request = urllib.request.Request(
            self.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            value: dict[str, Any] = json.load(answer)
        return value

    def get(self, path: str) -> dict[str, Any]:
        """The JSON at a path."""
        with urllib.request.urlopen(self.address + path, timeout=120) as answer:
            value: dict[str, Any] = json.load(answer)
        return value

    def token_ids(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text as it stands; `special`: as the server takes a prompt: BOS, special tokens read."""
        body = {"content": text, "add_special": special, "parse_special": special}
        ids: list[int] = self.post("/tokenize", body)["tokens"]
        return ids

    def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt that the chat endpoint makes of a dialogue."""
        prompt: str = self.post("/apply-template", {"messages": messages})["prompt"]
        return prompt

    def top_logprobs(self, ids: list[int], count: int = 50) -> dict[int, float]:
        """The likeliest next tokens, before any sampler: id -> natural log of the probability.

        The token taken is set to be "a": llama.cpp drops the figures of one that ends within a character.
        """
        body = {
            "prompt": ids,
            "n_predict": 1,
            "n_probs": count,
            "cache_prompt": False,
            "logit_bias": [[self.token_ids("a")[-1], 10_000.0]],
        }
        answer = self.post("/completion", body)["completion_probabilities"][0]["top_logprobs"]
        return {entry["id"]: entry["logprob"] for entry in answer}


def main(gguf: str, context: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.n_ctx = int(context)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    # Keys and values of the cache in fp32: in fp16, the default, log-probabilities are off by up to 0.01.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.verbosity = 0
    server = xllamacpp.Server(params)
    print("address", server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # its threads do not end by themselves


if __name__ == "__main__":
    main(*sys.argv[1:])
