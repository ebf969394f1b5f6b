# Two commands for a fresh machine with Python >= 3.11, make and a network:
#   make demo    environment, data, three trainings, the table
#   make test    environment, style, types, tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
TEST_PROCESSES ?= 2
STAMP  := $(VENV)/.installed

.PHONY: demo test check install clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "found $$($(PYTHON) --version); expected Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/bench run --model segmamba,segresnet,unetr --dataset phantom
	$(BIN)/bench table --dataset phantom

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(TEST_PROCESSES) --dist worksteal -m "not alone"
	$(BIN)/pytest -m alone $$(grep -rl --include='*.py' 'mark\.alone' tests)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
