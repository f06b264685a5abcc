PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
USER := .venv/.installed
DEV := .venv/.installed-dev

.PHONY: train test test-slow check format bench bench-solve bench-scaling bench-learning clean

train: $(USER)
	$(BIN)/python main.py

test: $(DEV)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-slow: $(DEV)
	$(BIN)/python -m pytest -m slow

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(USER)
	$(BIN)/python -m benchmarks.throughput

bench-solve: $(USER)
	$(BIN)/python -m benchmarks.solve

bench-scaling: $(USER)
	$(BIN)/python -m benchmarks.scaling

bench-learning: $(USER)
	$(BIN)/python -m benchmarks.learning

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=python3.11')"
	$(PYTHON) -m venv .venv

$(USER): requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(DEV): requirements-dev.txt requirements-tune.txt $(USER)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@
