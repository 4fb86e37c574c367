# make demo   environment, export of the embedded model, answers at several budgets, picture, latency table
# make test   ruff, mypy, pytest; engines of TensorRT-RTX are built too where it can be installed (test-rtx: only these)
# make docs   the documentation site, in build/docs
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
IMAGE  := examples/scene.png

# In folders of their own, for the tests that build engines; 1.4 has the parser of TensorRT 10.16's time.
RTX    := $(VENV)/tensorrt-rtx-1.7.1.116
RTX14  := $(VENV)/tensorrt-rtx-1.4.0.76
SITES  := if [ -d $(RTX) ]; then export GRIP_EDGE_RTX_SITE=$(abspath $(RTX)); fi; \
          if [ -d $(RTX14) ]; then export GRIP_EDGE_RTX14_SITE=$(abspath $(RTX14)); fi

# What runs on devices, some of which have Python 3.10.
DEVICE := $(wildcard grip_edge/*.py) $(addprefix grip_edge/,cli calibration/data planning plugin reporting runtime export/tensorrt)

.PHONY: demo test test-rtx test-python310 rtx lint docs wheel clean

demo: $(READY)
	$(BIN)/grip-edge export --model llava-tiny --budget-range 0.1,0.5 --out grip-bundle --force
	$(BIN)/python examples/demo.py grip-bundle $(IMAGE) kept-patches.png
	$(BIN)/grip-edge bench --bundle grip-bundle --image $(IMAGE) --budgets 0.1,0.25,0.5,1.0 --repeats 20

test: $(READY) lint rtx
	$(SITES); $(BIN)/python -m pytest

test-rtx: rtx
	$(SITES); $(BIN)/python -m pytest tests/export/test_engines.py tests/export/test_engines_by_form.py tests/export/test_engine_gates.py

lint: $(READY)
	$(BIN)/ruff check grip_edge tests benchmarks examples docs
	$(BIN)/ruff format --check grip_edge tests benchmarks examples docs
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 --follow-imports silent $(DEVICE)

# The device side in a real Python 3.10:  make test-python310 PYTHON310=/path/to/python3.10
PYTHON310 ?= python3.10
OLD_VENV  := $(VENV)/python-3.10
test-python310: $(READY)
	[ -d $(OLD_VENV) ] || $(PYTHON310) -m venv $(OLD_VENV)
	$(OLD_VENV)/bin/python -m pip install --quiet --disable-pip-version-check .
	GRIP_EDGE_PYTHON310=$(abspath $(OLD_VENV))/bin/python $(BIN)/python -m pytest tests/test_python310.py

# 100 MB to download each, for Linux on x86-64 and ARM servers. Elsewhere, and without network, the tests are skipped.
rtx: $(READY)
	@for folder in $(RTX) $(RTX14); do [ -d $$folder ] || { \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --target $$folder.partial \
	    tensorrt-rtx==$${folder##*-} > $$folder.log 2>&1 && mv $$folder.partial $$folder; \
	} || echo "tensorrt-rtx $${folder##*-} cannot be installed here ($$folder.log); its tests are skipped."; done

docs: $(READY)
	$(BIN)/python docs/cli_reference.py --check
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

# PyTorch first and pinned: any CPU build does, and nothing after it may replace it.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
	  || { echo "Exporting and testing take Python 3.11 or newer (a device 3.10); run  make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) grip-bundle kept-patches.png build dist
