# Needs python3 (3.11 or later) and make; everything else is put into .venv.

.DEFAULT_GOAL := help
.PHONY: help demo test check prove compile bench bench-peers docs lock format clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Run the whole product with a simulated provider; ARGS="--port 9000" chooses the port
	@scripts/bootstrap runtime
	@exec .venv/bin/ownkey demo $(ARGS)

test: ## Run every check and every test; ARGS goes to pytest: ARGS="-k allowance"
	@scripts/test $(ARGS)

check: ## Formatting, lint, types and import contracts; no test
	@scripts/bootstrap all
	@scripts/check

prove: ## Run the tests that count, with the counts of a release: minutes to hours; ARGS goes to pytest
	@scripts/prove $(ARGS)

compile: ## Compile the modules that every request passes through, into build/compiled
	@scripts/compile

bench: ## Measure the relay and print ratios; ARGS goes to the benchmark
	@scripts/bootstrap all
	@scripts/bench-tools
	@.venv/bin/python -m scripts.bench $(ARGS)

bench-peers: ## Install other gateways into .bench-peers, for the benchmark only
	@scripts/bootstrap all
	@scripts/bench-peers

docs: ## Write the generated parts of the documentation again
	@scripts/bootstrap all
	@.venv/bin/python scripts/docs.py $(ARGS)

lock: ## Resolve the dependencies again into the two lock files
	@scripts/lock

format: ## Format the code and mend what the linter can mend
	@scripts/bootstrap all
	@.venv/bin/ruff check --quiet --fix-only .
	@.venv/bin/ruff format .

clean: ## Remove the environment, caches and builds; never data/
	rm -rf .venv .bench-peers build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache test-results
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
