# make demo   environment, export of the embedded model, answers at several budgets, picture, latency table
# make test   ruff, mypy, pytest
# make docs   the documentation site, in build/docs
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
IMAGE  := examples/scene.png

.PHONY: demo test lint docs wheel clean

demo: $(READY)
	$(BIN)/grip-edge export --model llava-tiny --budget-range 0.1,0.5 --out grip-bundle --force
	$(BIN)/python examples/demo.py grip-bundle $(IMAGE) kept-patches.png
	$(BIN)/grip-edge bench --bundle grip-bundle --image $(IMAGE) --budgets 0.1,0.25,0.5,1.0 --repeats 20

test: $(READY) lint
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check grip_edge tests benchmarks examples docs
	$(BIN)/ruff format --check grip_edge tests benchmarks examples docs
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python docs/cli_reference.py --check
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

# PyTorch first and pinned: any CPU build does, and nothing after it may replace it.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
	  || { echo "grip-edge needs Python 3.11 or newer; run  make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) grip-bundle kept-patches.png build dist
