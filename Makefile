# Every target in one line each: `make` alone prints them.

.DEFAULT_GOAL := help
.PHONY: help dev test lint compat fuzz bench schema-dump openapi schemathesis supabase

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

dev: ## run Rapport with a PostgreSQL of its own, the schema and five people
	scripts/dev

test: ## every test: Rust, SQL and sockets, then the official JavaScript clients
	scripts/test

lint: ## formatting, lints and documentation, as the build checks them
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

compat: ## only the official JavaScript clients against a fresh build
	cargo build --locked
	cd tests/compat && npm ci --no-audit --no-fund --loglevel=error
	cd tests/compat && COMPAT_SERVER="$(abspath $(or $(CARGO_TARGET_DIR),target))/debug/rapport" npm test

supabase: ## a message on hosted Supabase's shape and its advisor's lints, on PostgreSQL 15 to 18
	scripts/test-supabase

fuzz: ## look for inputs that break what reads bytes from outside, a minute for each target
	scripts/fuzz --seconds 60

schemathesis: ## call every route with invented requests, five minutes long
	scripts/schemathesis --seconds 300

bench: ## every benchmark, about 20 minutes; the figures go into docs/benchmarks.md
	scripts/bench-all

schema-dump: ## write sql/install.sql, sql/schema.sql and docs/schema.md anew after a change below sql/
	WRITE_GENERATED_SQL=1 cargo test --locked --test it schema_install::generated_

openapi: ## write docs/openapi.json anew after a change of what routes take or answer
	WRITE_SNAPSHOTS=1 cargo test --locked --test it openapi::
