# make demo           a training that dies twice and ends with the very weights of one that did not; the run stays
#                     in runs/demo, for `resilient ls runs/demo` and the like
# make test           style, types, tests; REQUIRE_ALL=1 make test: a test that skips fails
# make proof          the campaigns: crash states, and real trainings killed and made up at random; CI runs both
# make style          ruff: its rules and its format
# make types          mypy, strict
# make tests          the tests alone, without the campaigns
# make campaigns      real trainings killed and made up at random: a few of make kills and make scripts
#
# make crash          every crash state of a store's daily life against its promises; a part of make proof
# make crash-deep     the same for more lives and every cipher; takes hours
# make crash-kernel   every fault at every operation of a real process, on real file systems; as root also on full and
#                     read-only ones and after a loss of power; takes some minutes. make test runs a part of it
# make kills          kills real trainings 200 times at random instants; takes some 20 minutes
# make scripts        makes up 500 scripts at random, each of which dies once or twice; takes an hour and a half
# make fuzz           the property tests on many new random examples; takes a while
# make coverage       fails if a branch of the code that reads and writes checkpoints is run by no test
# make bench          saves and loads beside stock MindSpore and the disk; takes minutes, wants a quiet machine
# make clean          removes the .venv and the caches
#
# Each sets up a .venv by itself; Python 3.10 to 3.12 and pip are all it needs.

SHELL := /bin/bash
PYTHON ?= $(firstword $(shell for v in 3.11 3.12 3.10; do \
	python$$v -c 'import ensurepip' 2>/dev/null && echo python$$v; done) python3)
BIN := .venv/bin
JOBS ?= 2
# The tests of the code that reads and writes checkpoints, the fuzzed ones included.
READERS := tests/codec tests/store tests/run tests/policy tests/wire/test_message_fuzz.py
# Many tests wait for a process, so one more runs than there are cores; each process of tests takes work from the others.
PYTEST := $(BIN)/python -m pytest -q -n $$(( $(JOBS) + 1 )) --dist worksteal
# MindSpore's own warnings would bury the demo's lines.
export GLOG_v ?= 3
# The tests start a thousand interpreters: they should not compile our modules each time.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test proof style types tests campaigns crash crash-deep crash-kernel kills scripts bench fuzz coverage clean

demo: .venv/ready
	$(BIN)/resilient-chaos drill --run-dir runs/demo examples/digits.py

test: style types tests

proof: crash campaigns

style: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

tests: .venv/ready
	$(PYTEST) -m 'not campaign'

campaigns: .venv/ready
	$(PYTEST) -m campaign tests/mindspore

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

# Without the enumeration of crashes: it runs no branch that the other tests do not run. With the tests of the tools:
# only they look at a run without training it (the quick look, claims that cannot be opened, keys of any length).
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
