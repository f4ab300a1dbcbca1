.PHONY: help setup demo demo-health test storm mutation check lint man docs reference pyslurm test-matrix plugin bench clean
.DEFAULT_GOAL := help

PY := .venv/bin/python
GOV := .venv/bin/slurm-gov
# Files of integration tests at a time, each with sandboxes of its own: they mostly wait. The storm has all to itself.
JOBS ?= 3
ENGINE := $(PY) -m slurm_gov.sandbox.docker_engine

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## install what is needed (Debian packages, .venv); safe to run again
	@scripts/setup dev

demo: setup plugin ## GPUs lent, taken back and given again on a real private Slurm, in two minutes
	@$(GOV) demo

demo-health: setup plugin ## a sick node found, its job moved, repaired, verified and back, in a minute
	@$(GOV) demo --health

check: setup ## unit, conformance and property tests, the plugin's own tests: under a minute, no Slurm
	@$(MAKE) --no-print-directory -C plugin_c check
	@$(PY) -m pytest -q -n 2 tests/unit tests/conformance tests/property

test: setup lint docs plugin check ## everything: lint, docs, check, and the integration tests on a real Slurm
	@$(PY) -m pytest -q -n $(JOBS) --dist loadfile --ignore tests/integration/test_storm.py tests/integration; \
	code=$$?; [ $$code -ne 1 ] || { echo "test: what failed beside others is run once more, alone" && \
	$(PY) -m pytest -q --last-failed --ignore tests/integration/test_storm.py tests/integration; code=$$?; }; exit $$code
	@$(PY) -m pytest -q tests/integration/test_storm.py

storm: setup plugin ## ten minutes of 500 mixed jobs on a real Slurm of 32 nodes, the invariants watched every second
	@SLURM_GOV_STORM=600 $(PY) -m pytest -q -s tests/integration/test_storm.py

mutation: setup ## break every rule of slurm_gov/core in turn; tests/mutation/REPORT.md says which test caught it
	@$(PY) tests/mutation

lint: setup man ## ruff, mypy (strict on policy/ and core/), codespell, the manual pages, cppcheck on plugin_c/
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy slurm_gov
	@.venv/bin/codespell
	@mandoc -T lint build/man/man?/*
	@for page in build/man/man?/*; do man --warnings -E UTF-8 -l -Tutf8 -Z $$page 2>&1 >/dev/null; done | (! grep .)
	@$(MAKE) --no-print-directory -C plugin_c lint

man: setup ## the manual pages, into build/man
	@$(PY) -m slurm_gov.cli.manual man build/man

docs: ## the documentation as a site, into build/site; a wrong link is an error
	@scripts/setup docs
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs --quiet build --strict

reference: setup ## docs/commands-reference.md and docs/policy-reference.md, from commands and schema
	@$(PY) -m slurm_gov.cli.manual docs docs

pyslurm: setup ## build pyslurm for the installed Slurm into .venv (needs python3-dev); optional
	@scripts/pyslurm

test-matrix: ## all suites on Slurm 22.05, 24.11 and 26.05, each in an image of its Debian release: an hour
	@scripts/setup docker
	@$(ENGINE) run $(PY) docker/matrix.py $(MATRIX)

.PHONY: cluster-up cluster-demo cluster-down
cluster-up: ## a governed cluster of containers: controller, NODES=4 nodes, Mosquitto, Prometheus
	@scripts/setup docker
	@DOCKER_HOST=$$($(ENGINE) start) $(PY) docker/cluster/cluster.py up

cluster-demo: ## GPUs lent, taken back and given again in it
	@DOCKER_HOST=$$($(ENGINE) start) $(PY) docker/cluster/cluster.py demo

cluster-down: ## end it, and remove all of it but the images
	@DOCKER_HOST=$$($(ENGINE) start) $(PY) docker/cluster/cluster.py down; $(ENGINE) stop

plugin: setup ## build job_submit_gov.so against the installed Slurm headers
	@$(MAKE) --no-print-directory -C plugin_c

bench: setup plugin ## measure what the project promises; see bench/README.md
	@$(PY) -m bench

clean: ## remove what was built here
	@$(MAKE) --no-print-directory -C plugin_c clean
	@rm -rf .venv build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info
	@find . -name __pycache__ -prune -exec rm -rf {} +
