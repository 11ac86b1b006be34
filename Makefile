# Every target makes .venv itself; nothing else is needed than Python 3.11 or newer and make.
#
#   make demo [IMAGE=my.jpg] [PROMPT="the red car"]   segment a photograph through the real HTTP API
#   make test [ARGS="-k upload"]                      all tests
#   make test-sam3                                    those of SAM 3, which need PyTorch (gigabytes)
#   make check                                        format, lint, types, import directions, docs
#   make bench                                        speed, as ratios measured in one run
#   make soak [SOAK_S=600]                            ten minutes of killed servers, and nothing is lost
#   make docs                                         the documentation as HTML

PYTHON ?= python3
# Most of their time tests wait for something, so one more of them at once than there are cores.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-compile
# On all cores, which pip does on one. What cannot be compiled is a template of somebody's, and never imported.
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true

# Handed to the shell as variables, so that quotes, blanks and dollars in them stay what they are.
override IMAGE := $(value IMAGE)
override PROMPT := $(value PROMPT)
export IMAGE
export PROMPT

.PHONY: help demo test test-sam3 check bench soak docs clean
.DEFAULT_GOAL := help

help:
	@sed -n '3,9s/^# *//p' Makefile

demo: $(VENV)/.installed
	@$(BIN)/s3edge demo "$$IMAGE" "$$PROMPT"

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-sam3: $(VENV)/.installed-sam3
	CI_REQUIRES_SAM3=1 $(BIN)/python -m pytest tests/unit/inference/sam3 $(ARGS)

check: $(VENV)/.installed-test $(VENV)/.installed-check docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	.ci/pyright

docs: $(VENV)/.installed-check
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky -q -b html docs docs/_build

bench: $(VENV)/.installed-test
	$(BIN)/python -m tests.benchmarks.run

soak: $(VENV)/.installed-test
	SOAK_S=$(or $(SOAK_S),600) $(BIN)/python -m pytest -s tests/e2e/fleet/test_chaos.py -k queue $(ARGS)

clean:
	rm -rf $(VENV) dist docs/_build

$(VENV)/bin/python:
	@command -v $(PYTHON) > /dev/null || { \
		echo 'There is no $(PYTHON); say PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "s3edge needs Python 3.11 or newer, and $(PYTHON) is %d.%d; say PYTHON=/path/to/python3.11" % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo 'Python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	@$(PIP) --upgrade pip || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo 'Installing into $(VENV), once...' >&2
	@$(PIP) --editable '.[embedded]'
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-test: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo 'Installing what tests need into $(VENV), once...' >&2
	@$(PIP) --editable '.[embedded,testing,dev-test]'
	@$(COMPILE)
	@touch $(VENV)/.installed $@

# Most of what comes with PyTorch is never imported here, so nothing of it is compiled ahead. What is
# installed stays as it is, so that `make check` can run meanwhile.
$(VENV)/.installed-sam3: $(VENV)/.installed-test
	@echo 'Installing PyTorch and transformers, once...' >&2
	@$(PIP) 's3edge[sam3]'
	@touch $@

$(VENV)/.installed-check: $(VENV)/.installed
	@echo 'Installing what checks need, once...' >&2
	@$(PIP) --editable '.[embedded,testing,dev-check]'
	@$(COMPILE)
	@touch $@
