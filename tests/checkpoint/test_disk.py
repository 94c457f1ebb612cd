"""The disk ends in the middle of a save: the error is named, leftovers go, older checkpoints stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoint.helpers import newest
from tests.support.launch import ROOT

# A file size limit makes the kernel refuse writes past it, in the middle of a file, as a full disk does.
WORKER = """
import json, resource, sys
from pathlib import Path
import torch
from tests.checkpoint.helpers import make_store, save, write_contents
from persianmind.engine.deepspeed.files import DeepSpeedSnapshot
from persianmind.common.errors import CheckpointWriteError

states = {"deepspeed/shard.pt": {"w": torch.arange(100_000)}, "deepspeed/small.pt": {"w": torch.zeros(3)}}
snapshot = DeepSpeedSnapshot(states)
hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
messages = {}
for limit in sys.argv[2:]:
    store = make_store(Path(sys.argv[1]) / limit)
    save(store, 10)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard_limit))
    try:
        store.save(20, {"note": "x" * 3000}, snapshot.write)
        messages[limit] = None
    except CheckpointWriteError as error:
        messages[limit] = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard_limit, hard_limit))
print(json.dumps(messages))
"""
# In the marker; in the small file's or the manifest's bytes; within a tensor; near the end of the shard.
LIMITS_BYTES = (10, 1_500, 3_000, 20_000, 700_000)
NO_LIMIT_BYTES = 1 << 40


@pytest.mark.integration
def test_file_size_limit_in_the_middle_of_a_save(tmp_path: Path) -> None:
    # Under the limit an import would leave half a .pyc in the environment for every later run to fail on.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    limits = [str(limit) for limit in (*LIMITS_BYTES, NO_LIMIT_BYTES)]
    command = [sys.executable, "-c", WORKER, str(tmp_path), *limits]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    messages = json.loads(done.stdout)
    for limit in LIMITS_BYTES:
        message, root = messages[str(limit)], tmp_path / str(limit)
        assert message is not None, f"saved in spite of a limit of {limit} bytes"
        assert message.startswith(
            "the checkpoint of step 20 was not saved (older ones are untouched): rank 0: "
        )
        assert "File too large" in message and "\n" not in message and len(message) < 300, message
        assert sorted(path.name for path in root.iterdir()) == ["latest.json", "step-10"]
        assert newest(root).step == 10
    # Control: without a limit the same save goes through.
    assert messages[str(NO_LIMIT_BYTES)] is None
    assert (tmp_path / str(NO_LIMIT_BYTES) / "step-20" / "manifest.json").exists()
