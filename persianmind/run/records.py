"""What is written into a run folder, line by line and file by file: writers and readers use these models.

Every line and every file carries a checksum beside these fields (common/checksum.py). Readers that must live
with files of other versions ignore keys they do not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from persianmind.common.checksum import parse_checked_line
from persianmind.run.beside_steps import BesideSteps
from persianmind.run.energy_account import check_account
from persianmind.run.evaluation_records import (
    EvaluationResult,
    NewTokens,
    NotRun,
    PublishedScore,
    SuiteResult,
)
from persianmind.run.record import RunRecord

R = TypeVar("R", bound=RunRecord)
BASE_STAGE = "base"  # the untouched base model, before any stage


class Phase(StrEnum):
    """What a run is doing; `TRAIN` is the optimizer steps of a stage."""

    PREPARE = "prepare"
    START = "start"
    TRAIN = "train"
    EVALUATE = "evaluate"
    EXPORT = "export"


class SkipReason(StrEnum):
    """Why a step moved no weight."""

    SPIKE = "spike"
    NONFINITE = "nonfinite"


class MemoryBytes(RunRecord):
    """What rank 0's memory holds. weights: of the frozen layers, their buffers among them; embeddings: both
    parts of the tables; optimizer: masters and moments, this rank's part; activations: what the layers keep
    of a micro-batch for its backward pass; loss: what the loss holds beside it at its highest; other: what is
    left of the highest use, on a GPU of torch's tensors, on a CPU of the process with its libraries."""

    weights: int
    embeddings: int
    adapters: int
    optimizer: int
    activations: int
    loss: int
    other: int


class StepRecord(RunRecord):
    """One optimizer step: a line of metrics.jsonl.

    loss: mean over all targets, nats; None where it is no finite number (`loss_hex` has it in any case).
    tokens: packed positions of all ranks; useful_tokens: those of documents. joules: of this node's meter in
    this attempt so far. loss_by_source: the same mean over the targets of each source in this step;
    bits_per_byte_by_source, ..._by_language: that loss by the bytes its targets stand for, at the source's
    mean of bytes per token, so that vocabularies and languages compare. peak_memory_bytes: of rank 0's
    process, and of its GPU where it has one; memory: the latter, or else the former, by kind.
    """

    stage: str
    step: int
    stage_step: int
    loss: float | None
    loss_hex: str
    tokens: int
    useful_tokens: int
    target_tokens: int
    tokens_per_s: float
    useful_tokens_per_s: float
    characters_per_s: float | None
    grad_norm: float | None
    learning_rate: float
    embedding_learning_rate: float
    skipped: bool
    skip_reason: SkipReason | None
    first_sample: int
    samples: int
    seconds: float
    mfu: float | None
    peak_memory_bytes: int | None
    peak_device_memory_bytes: int | None
    memory: MemoryBytes | None = None
    joules: float | None
    step_joules: float | None
    loss_by_source: dict[str, float] = Field(default_factory=dict)
    bits_per_byte_by_source: dict[str, float] = Field(default_factory=dict)
    bits_per_byte_by_language: dict[str, float] = Field(default_factory=dict)
    time: str


class ExportResult(RunRecord):
    """How the exported model compares with the trained one.

    losses: nats per token on the same text, of the model as it was trained (`trained`), of the same adapters
    over the 16-bit base where it was trained over 4 bits (`unquantized`), and of the `exported` one.
    relative_loss_difference: of the exported to what it must equal, the largest over the texts. n_texts,
    n_dialogues: whose token ids were compared with the trained tokenizer and prompt.
    """

    relative_loss_difference: float
    tolerance: float
    losses: dict[str, float] = Field(default_factory=dict)
    n_texts: int = 0
    n_dialogues: int = 0


class ModelSize(RunRecord):
    """Counts of the trained model: weights, and ids of its vocabulary."""

    parameters: int
    trained_parameters: int
    base_vocab: int
    added_vocab: int


class SampleText(RunRecord):
    """What a model wrote after a prompt."""

    prompt: str
    text: str
    stage: str


class WarmStart(RunRecord):
    """Where a run took its first trained weights from (--resume-from)."""

    path: str
    step: int
    stage: str | None


class Determinism(RunRecord):
    """Whether steps run in torch's strict mode; refused: the operation for which they do not."""

    strict: bool
    refused: str | None = None


class Recompute(RunRecord):
    """What `train.gradient_checkpointing: auto` came to. needed_bytes: of a rank at its highest, with
    reserve, as planned; usable_bytes: what every rank has at least. The light processes that read this file
    do without the recipe's own types."""

    setting: Literal["off", "selective", "full"] | dict[Literal["full_layers"], int]
    needed_bytes: int
    usable_bytes: int


class BestCheckpoint(RunRecord):
    """The best value so far of the metric that `evaluate.best_metric` names, and the step that has it."""

    metric: str
    value: float
    step: int


class DataChange(RunRecord):
    """Other data taken under a run by --accept-changed-data. step: the last one over the data before."""

    source: str
    step: int
    what: str


class RunResults(RunRecord):
    """results.json. evaluation: held-out scores by stage; within_stages: those on the way. results: of
    suites; not_run: those without data; published: what others measured. data_changes: other data taken on
    the way. energy: the account (energy/ledger.py), as JSON. total_steps: of all stages, as planned at the
    last start. beside_steps: for when the run will be done. commit: of the program, where it ran from a
    checkout."""

    evaluation: list[EvaluationResult] = Field(default_factory=list)
    within_stages: list[EvaluationResult] = Field(default_factory=list)
    results: list[SuiteResult] = Field(default_factory=list)
    not_run: list[NotRun] = Field(default_factory=list)
    published: list[PublishedScore] = Field(default_factory=list)
    new_tokens: list[NewTokens] = Field(default_factory=list)
    best: BestCheckpoint | None = None
    finished: bool = False
    total_steps: int | None = None
    beside_steps: BesideSteps | None = None
    commit: str = ""
    warm_start: WarmStart | None = None
    data_changes: list[DataChange] = Field(default_factory=list)
    determinism: Determinism | None = None
    recompute: Recompute | None = None
    model: ModelSize | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    export: ExportResult | None = None
    samples: list[SampleText] = Field(default_factory=list)
    energy: Annotated[dict[str, Any], AfterValidator(check_account)] | None = None


class Prepared(RunRecord):
    """prepared.json: what preparation found or made.

    sequences_by_source: by the name of a packing (recipe/packing.py), which is that of its source or begins
    with it; None for one that is built while training runs. fingerprints: by the same, what its token shards
    depend on (data/manifest.py).
    """

    base_fingerprint: str
    tokenizer_fingerprint: str
    sequences_by_source: dict[str, int | None]
    fingerprints: dict[str, dict[str, str]]

    @property
    def to_build(self) -> list[str]:
        """Packings that are not whole yet, in the recipe's order."""
        return [name for name, count in self.sequences_by_source.items() if count is None]


class DataUse(RunRecord):
    """What a run could read of one source up to a checkpoint.

    fingerprints: what its token shards depend on. shards, hash: how many there were, and a hash over theirs
    in order; whole: whether these are all of the source.
    """

    fingerprints: dict[str, str]
    shards: int
    hash: str
    whole: bool


class RunMetadata(RunRecord):
    """What a checkpoint's manifest records of its run. callbacks: their state_dicts, by name; data:
    by source, what the steps so far were trained on."""

    recipe_fingerprint: str
    base_fingerprint: str
    tokenizer_fingerprint: str
    stage: str
    tokens: int
    next_sample: int
    data: dict[str, DataUse]
    data_changes: list[DataChange]
    callbacks: dict[str, Any]
    versions: dict[str, str]


class Heartbeat(RunRecord):
    """A sign of life of one rank: how often it made progress, and where it stands now.

    launch: what tells the ranks of one launch from those of another. preparing: what it prepares for all;
    failed: why it could not; both "" otherwise.
    """

    tick: int
    pid: int
    node: str
    beats: int
    where: str
    waits: bool
    launch: str = ""
    preparing: str = ""
    failed: str = ""


def read_lines(path: Path, kind: type[R]) -> Iterator[R | None]:
    """The records of a JSON-lines file; None for a line that is damaged, was cut short, or is of another
    kind. Nothing where there is no file."""
    if not path.is_file():
        return
    with path.open("rb") as handle:
        for line in handle:
            if line.strip():
                yield parse_record(line, kind)


def parse_record(line: bytes | str, kind: type[R]) -> R | None:
    """One checked line as a record, or None."""
    content = parse_checked_line(line)
    if content is None:
        return None
    try:
        return kind.model_validate(content)
    except ValidationError:
        return None
