"""Named errors, one for each failure a user can act on.

Every message is one line and says what to do. Entry points (cli, launcher, cluster) print the line on
standard error and exit with `exit_code`; a traceback means a bug of ours, not a mistake of the user.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PersianMindError(Exception):
    """Base of every error a user can act on. `exit_code` is what the process ends with.

    `by_all_ranks`: every rank raises it together, so rank 0 says it for all.
    """

    exit_code = 2
    by_all_ranks = False


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns " (did you mean 'x'?)" for the closest known word, or ""."""
    matches = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


# --- configuration -----------------------------------------------------------------------------------
class RecipeError(PersianMindError):
    """The recipe, an override or a DeepSpeed config is not usable as written."""


class UsageError(PersianMindError):
    """A command was given flags that it does not have, or values that it cannot use."""


class ConfigConflictError(RecipeError):
    """The recipe and the DeepSpeed config say different things; the message names both places."""


class RunFolderError(PersianMindError):
    """The run folder belongs to another recipe, or is not a run folder."""


# --- machine -----------------------------------------------------------------------------------------
class MachineError(PersianMindError):
    """The machine lacks something the run needs: a compiler, disk room, a package, a device."""


class DiskError(MachineError, OSError):
    """A file system refuses a file: it is full, read-only, failing or gone; the line names the file. What was
    committed before is untouched.

    Also an OSError: who can do without a file catches either in one way.
    """

    exit_code = 11


class DamagedFileError(PersianMindError):
    """A file of ours is not as it was written; the message names it."""


# --- text and data -----------------------------------------------------------------------------------
class SourceError(PersianMindError):
    """A source of text cannot be found or read."""


class EmptyCorpusError(SourceError):
    """A source gave no usable record."""


class TooManyBadRecordsError(SourceError):
    """More records of a source are bad than `data.max_bad_record_ratio` allows; the build stopped."""


class DataError(PersianMindError):
    """Token shards are missing, damaged, or do not fit the recipe."""


class ChangedDataError(DataError):
    """The token shards of a run are not those that it was trained on; every rank raises it together."""

    by_all_ranks = True


class BuildFailedError(DataError):
    """Building a source beside training failed; every rank reads so in its folder."""

    by_all_ranks = True


class BuildStalledError(BuildFailedError):
    """The process that builds a needed source beside training gets nothing done; the line names its log."""

    exit_code = 8


# --- vocabulary --------------------------------------------------------------------------------------
class VocabError(PersianMindError):
    """The vocabulary cannot be expanded as asked."""


class ExactnessError(VocabError):
    """The expanded tokenizer failed its exactness gate; nothing was saved."""


# --- model and training ------------------------------------------------------------------------------
class BaseModelError(PersianMindError):
    """The base model is missing, or is of a kind that cannot be adapted."""


class SelfTestError(PersianMindError):
    """A self-test before step 1 failed; the run would have trained something else than intended."""

    exit_code = 3


class NonFiniteError(PersianMindError):
    """Loss or gradients stayed non-finite past the budget; the last good checkpoint is kept."""

    exit_code = 4
    by_all_ranks = True


class RunInterruptedError(PersianMindError):
    """SIGTERM or SIGINT: a checkpoint was saved at the step reached; the same command resumes."""

    exit_code = 75  # EX_TEMPFAIL: try again later, nothing is wrong


class HangError(PersianMindError):
    """No rank made progress for `train.hang_timeout_s`; the line names the stalled one."""

    exit_code = 8


class RankUnreachableError(HangError):
    """A rank did not come to the start, or its data does not; the line names it, its GPU and its node."""


class GpuError(PersianMindError):
    """Base of what a GPU or the exchange between GPUs fails with; the line says what helps."""

    exit_code = 9


class GpuMemoryError(GpuError):
    """A GPU is out of memory; the line has the numbers and the recipe's keys that help, in order."""


class CollectiveError(GpuError):
    """NCCL failed, on this rank or because another one ended."""


class GpuFaultError(GpuError):
    """A kernel, a GPU or its link failed."""


class ExportError(PersianMindError):
    """An export cannot be made or used, or is not the trained model; the message says what differs."""


class PushError(ExportError):
    """An export cannot be uploaded; the message says what the Hub wants."""


# --- checkpoints -------------------------------------------------------------------------------------
class CheckpointError(PersianMindError):
    """A checkpoint is damaged, foreign, or does not fit this run."""

    exit_code = 5


class CheckpointWriteError(CheckpointError):
    """A checkpoint could not be written; its leftovers are removed and older ones are untouched."""


class RunLockedError(RunFolderError):
    """Another process runs in this folder."""


# --- energy ------------------------------------------------------------------------------------------
class EnergyError(PersianMindError):
    """An energy setting is not usable (unknown country code, bad curve file)."""


class BudgetExceededError(PersianMindError):
    """The run's energy or CO2 budget is used up: a checkpoint was saved; a higher budget lets it resume."""

    exit_code = 6
    by_all_ranks = True


class PowerLimitError(PersianMindError):
    """Power limits of the GPUs cannot be read or set; the message says why."""


class ForgettingError(PersianMindError):
    """A language that the base knows got worse than the recipe allows; the run stopped, saved."""

    exit_code = 10
    by_all_ranks = True


# --- cluster -----------------------------------------------------------------------------------------
class ClusterError(PersianMindError):
    """The Ray cluster cannot run the job as asked."""


class JobLostError(ClusterError):
    """The cluster lost the job: its head died, or Ray's own process that led it. Checkpoints are in the run
    folder."""

    exit_code = 7
