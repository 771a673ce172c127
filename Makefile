# Everything a newcomer runs. Each target sets up .venv first (once; see deploy/bootstrap.py). GNU make 3.81 will do.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint chaos soak bench reproduce dist lock audit deploy-check clean

# Where it is set, each of the hundreds of processes that tests start would compile all of torch's Python anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
SETUP := sh deploy/bootstrap.sh

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv with all packages, and fetch Kafka (the first time only)
	@$(SETUP)

demo: setup ## Run the whole system on a real Kafka, live in this terminal (some minutes)
	@$(BIN)/eddy demo

test: lint ## Check style, imports and types, then run all tests on a real Kafka
	@$(BIN)/pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

lint: setup ## Check style, imports and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/oxlint --deny-warnings serving/page deploy/examples
	@$(BIN)/oxfmt --check serving/page deploy/examples
	@$(BIN)/lint-imports
	@$(BIN)/mypy

chaos: setup ## Kill, pause and move workers under load, kill refreshes, lose machines; compare with undisturbed runs
	@$(BIN)/python -m tests.chaos.run
	@$(BIN)/python -m tests.chaos.refreshes
	@$(BIN)/python -m tests.chaos.machines

soak: setup ## Steady load with kills, swaps, refreshes, erasures and HTTP; memory, files and disk must stay flat (MINUTES=30)
	@$(BIN)/python -m tests.chaos.soak --minutes $(or $(MINUTES),30)

bench: ## Measure speed beside other programs (70 minutes, 10 GB in the cache folder; QUICK=1: 9; ONLY="growth …": parts)
	@$(SETUP) bench
	@$(BIN)/python -m tests.bench.run $(if $(QUICK),--quick) $(if $(RECORD),--record) $(if $(ONLY),--only $(ONLY))

reproduce: setup ## Rebuild the accuracy tables (hours; resumes; EDDY_DATA=file.parquet or EDDY_STREAMS=folder)
	@$(BIN)/python -m tests.reproduce.$(if $(EDDY_STREAMS),streams,run)

dist: setup ## Build the wheel and the sdist into dist/
	@$(BIN)/uv build --quiet && ls dist

lock: setup ## Renew the versions that the containers install (deploy/requirements/)
	@sh deploy/requirements/lock.sh $(BIN)/uv

audit: ## Ask for known vulnerabilities of these versions
	@$(SETUP) deploy
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement deploy/requirements/cuda.txt

deploy-check: ## Check containers, Kubernetes, dashboards, alerts and workflows (3 minutes at most, no Docker)
	@$(SETUP) deploy
	@$(BIN)/pytest -n0 tests/deploy

clean: ## Remove .venv and everything that was built here (downloads stay in the user's cache)
	rm -rf .venv build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
