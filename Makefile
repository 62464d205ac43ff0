# `make` without a target prints all targets, one per line.

.DEFAULT_GOAL := help
.PHONY: help dev test lint compat fuzz bench schema-dump openapi schemathesis supabase

help: ## print all targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

dev: ## run Rapport with a private PostgreSQL, the schema and five demonstration users
	scripts/dev

test: ## run all tests: Rust, SQL and sockets, then the official JavaScript clients
	scripts/test

lint: ## check formatting, lints and documentation, as CI does
	scripts/lint

compat: ## run only the tests with the official JavaScript clients, against a new build
	cargo build --locked
	cd tests/compat && npm ci --no-audit --no-fund --loglevel=error
	cd tests/compat && COMPAT_SERVER="$(abspath $(or $(CARGO_TARGET_DIR),target))/debug/rapport" npm test

supabase: ## test the path of a message in a hosted project, and the lints of Supabase's advisor, on PostgreSQL 15 to 18
	scripts/test-supabase

fuzz: ## fuzz everything that reads untrusted bytes, one minute per target
	scripts/fuzz --seconds 60

schemathesis: ## call every route with generated requests for five minutes
	scripts/schemathesis --seconds 300

bench: ## run all benchmarks (about 20 minutes) and write the figures to docs/benchmarks.md
	scripts/bench-all

schema-dump: ## regenerate sql/install.sql, sql/schema.sql and docs/schema.md after a change below sql/
	WRITE_GENERATED_SQL=1 cargo test --locked --test it schema_install::generated_

openapi: ## regenerate docs/openapi.json after a change to what routes accept or return
	WRITE_SNAPSHOTS=1 cargo test --locked --test it openapi::
