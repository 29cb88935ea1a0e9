# make demo   a training run that is killed twice and ends with the very weights of one that was not;
#             it stays in runs/demo, for `resilient ls runs/demo` and the like
# make test   everything that CI holds: style, types, tests
#             REQUIRE_ALL=1 make test   the same, and a test that skips fails
#
# make crash  every crash state of a store's daily life, held against its promises (a part of make test)
# make crash-deep   the same for more lives and every cipher; takes hours
# make crash-kernel   every operation of a real process hit in turn, with every fault, on real file systems; as root
#             also full, read-only and powerless ones. A part of it is in make test; this takes some minutes
# make bench  saves and loads beside stock MindSpore and the disk; takes minutes, wants a quiet machine
# make kills  200 kills of real trainings at random instants; takes some 20 minutes
# make scripts   500 scripts made up at random, each of which dies once or twice; takes an hour and a half
# make fuzz   the property tests on new random examples, many of them; takes a while
# make coverage   every branch of what reads and writes checkpoints is run by a test, or it fails
#
# They set up a .venv by themselves; Python 3.10 to 3.12 and pip are all they need.

SHELL := /bin/bash
PYTHON ?= $(firstword $(shell for v in 3.11 3.12 3.10; do \
	python$$v -c 'import ensurepip' 2>/dev/null && echo python$$v; done) python3)
BIN := .venv/bin
JOBS ?= 2
# The tests of what reads and writes checkpoints, the fuzzed ones among them.
READERS := tests/codec tests/store tests/run tests/policy tests/wire/test_message_fuzz.py
# MindSpore's own warnings would bury what the demo has to say.
export GLOG_v ?= 3

.PHONY: demo test style types tests crash crash-deep crash-kernel kills scripts bench fuzz coverage clean

demo: .venv/ready
	$(BIN)/resilient-chaos drill --run-dir runs/demo examples/digits.py

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

crash-kernel: .venv/ready
	KERNEL_FAULTS=all $(BIN)/python -m pytest -q -n $(JOBS) --timeout 900 tests/kernel

bench: .venv/ready
	$(BIN)/python benchmarks/store.py

kills: .venv/ready
	$(BIN)/python -m chaos.kills --kills 200 --jobs $(JOBS)

scripts: .venv/ready
	RANDOM_SCRIPTS=500 $(BIN)/python -m pytest -q -n $(JOBS) tests/mindspore/test_random_scripts.py

fuzz: .venv/ready
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -q -n $(JOBS) --timeout 3600 $(READERS) $(wildcard tests/wire/test_mirror*.py) \
		tests/supervisor/loop/test_machine.py

# Not the enumerations of crashes: all that they run, the others run as well. The tools are who looks at a run
# without training it: the quick look, the claims of what cannot be opened, and keys of whatever length.
coverage: .venv/ready
	$(BIN)/python -m coverage run -m pytest -q $(READERS) tests/tools tests/host --ignore tests/store/test_store_crashes.py
	$(BIN)/python -m coverage report

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 10) <= v <= (3, 12))' \
		|| { echo 'Python 3.10, 3.11 or 3.12 is needed: make PYTHON=python3.11 ...'; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
