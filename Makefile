# Two commands for a fresh machine: `make demo` and `make test`. Both set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SAMPLE := samples/spikegpt-6m
INSTALLED := $(VENV)/.installed
SOURCES := $(shell find exporters/native -name '*.cc' -o -name '*.h' -o -name CMakeLists.txt)

.PHONY: demo test check clean

demo: $(INSTALLED)
	$(BIN)/slmc build $(SAMPLE) --max-memory 13.5% --max-drop 1% --threads 2 -o demo --force
	$(BIN)/slmc report demo
	$(BIN)/python demo/run.py -p "The ship left the harbour at dawn, and" -n 120

test: $(INSTALLED) check
	$(BIN)/python -m pytest -q

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(INSTALLED): pyproject.toml constraints.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt scikit-build-core cmake ninja
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[toolchain,dev]'
	touch $@

clean:
	rm -rf $(VENV) build demo
