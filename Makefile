# make demo   a training run that is killed twice and ends with the very weights of one that was not
# make test   everything that CI holds: style, types, tests
#
# make crash  every crash state of a store's daily life, held against its promises (a part of make test)
# make crash-deep   the same for more lives and every cipher; takes hours
# make kills  200 kills of real trainings at random instants; takes some 20 minutes
# make fuzz   the property tests on new random examples, many of them; takes a while
#
# They set up a .venv by themselves; Python 3.10 to 3.12 and pip are all they need.

SHELL := /bin/bash
PYTHON ?= $(firstword $(shell for v in 3.11 3.12 3.10; do \
	python$$v -c 'import ensurepip' 2>/dev/null && echo python$$v; done) python3)
BIN := .venv/bin
JOBS ?= 2
# MindSpore's own warnings would bury what the demo has to say.
export GLOG_v ?= 3

.PHONY: demo test style types tests crash crash-deep kills fuzz clean

demo: .venv/ready
	$(BIN)/resilient-chaos drill examples/digits.py

test: style types tests crash

style: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

tests: .venv/ready
	$(BIN)/python -m pytest -q -n $(JOBS)

crash: .venv/ready
	$(BIN)/python -m chaos.proof

crash-deep: .venv/ready
	$(BIN)/python -m chaos.proof --deep

kills: .venv/ready
	$(BIN)/python -m chaos.kills --kills 200 --jobs $(JOBS)

fuzz: .venv/ready
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -q -n $(JOBS) --timeout 3600 tests/store tests/codec tests/test_retention.py

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 10) <= v <= (3, 12))' \
		|| { echo 'Python 3.10, 3.11 or 3.12 is needed: make PYTHON=python3.11 ...'; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
