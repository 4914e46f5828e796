# Two commands for users: `make demo` and `make test`. Both make .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# One torch thread per process: the tests already run one process per core.
JOBS ?= 2

.PHONY: demo test check bench clean

demo: .venv/.package
	$(BIN)/xlstm-ts demo

test: .venv/.dev
	OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

bench: .venv/.dev
	$(BIN)/xlstm-ts bench kernels

.venv/.pip:
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	touch $@

.venv/.package: .venv/.pip pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

.venv/.dev: .venv/.package
	$(PIP) --group dev
	touch $@

clean:
	rm -rf .venv dist build .pytest_cache .ruff_cache .mypy_cache .hypothesis
