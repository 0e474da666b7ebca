# Everything a developer runs. `make demo` and `make test` do all their own set-up in .venv.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(shell find rust python -type f -not -name '*.so' -not -path '*/__pycache__/*') Cargo.toml Cargo.lock pyproject.toml README.md
# The core must build with no Python on the machine: name one that is not there.
CORE := PYO3_PYTHON=/nonexistent cargo

# What runs under AddressSanitizer is built apart. The runtime comes with the toolchain; its switch is not stable yet.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
SANITIZED := RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=address --cfg asan' RUSTDOCFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0 $(CORE) test --locked --target $(HOST) --target-dir target/asan

READERS := safetensors torch idx csv
FUZZ_RUNS ?= 1000000

.PHONY: help demo build test test-build test-core test-python lint sanitize fuzz bench bench-peers docs wheel clean

help: ## Shows this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.venv/ready: requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit("treadle: expected Python 3.11 or later, got " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

.venv/installed: .venv/ready $(SOURCES)
	rm -rf dist
	$(BIN)/maturin build --release --locked --out dist
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps dist/*.whl
	touch $@

wheel: .venv/installed ## Builds the wheel into dist/ and installs it into .venv

demo: .venv/installed ## Trains a residual MLP with BatchNorm1d on the digits, seeds 0 to 4
	$(BIN)/python examples/digits.py --out runs/digits

build: .venv/installed test-build ## Compiles the wheel and the core's tests; with -j2 side by side, as the wheel takes one processor

test-build:
	$(CORE) test --locked --no-run

test: test-core test-python ## Passes all tests

test-core: ## The core's tests, without Python
	$(CORE) test --locked

test-python: .venv/installed ## The package's tests, on the installed wheel
	$(BIN)/python -m pytest

lint: .venv/installed ## Formatting, clippy, documentation, types and stubs
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --features python -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --quiet
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --quiet --features python
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest treadle._core

sanitize: ## The core's tests under AddressSanitizer, with the pool's own memory watched as well
	@ls "$$(rustc --print target-libdir)"/librustc-*_rt.asan.a >/dev/null 2>&1 \
		|| { echo "sanitize: expected the AddressSanitizer runtime of $(HOST) in the Rust toolchain, got none in $$(rustc --print target-libdir)"; exit 1; }
	$(SANITIZED)
	@echo "A read behind a block must be found:"
	@$(SANITIZED) --lib -- --ignored a_byte_behind_a_block_is_read 2>&1 | grep 'ERROR: AddressSanitizer: use-after-poison' \
		|| { echo "sanitize: expected the sanitizer to find a read behind a block, got nothing"; exit 1; }

fuzz: .venv/installed ## Coverage-guided fuzzing of the readers of files, FUZZ_RUNS inputs each
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	mkdir -p $(READERS:%=target/fuzz/%)
	for reader in $(READERS); do \
		$(BIN)/python -m tests.fuzz $$reader -runs=$(FUZZ_RUNS) -artifact_prefix=target/fuzz/$$reader- \
			target/fuzz/$$reader tests/fuzz/corpus/$$reader || exit 1; \
	done

bench: ## The core's benchmarks, and its instruction counts held against benches/instructions.toml
	$(CORE) bench --locked

bench-peers: .venv/installed ## Side by side with PyTorch, JAX and scikit-learn
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch jax scikit-learn
	$(BIN)/python -m benches.peers

.venv/documenting: .venv/ready requirements-docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

docs: .venv/installed .venv/documenting ## The documentation site, into site/, and the core's, into target/doc
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	cargo doc --locked --no-deps

clean: ## Removes everything that was built
	rm -rf target dist runs site .venv
