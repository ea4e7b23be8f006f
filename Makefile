# `make` lists what there is to do. Nothing here needs more than Rust, a C compiler and, for the
# test control plane, Go (or KUBEBUILDER_ASSETS).

.DEFAULT_GOAL := help
SHELL := /bin/sh

TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY_ROOT := $(TARGET)/tools/cargo-deny-$(CARGO_DENY_VERSION)
CARGO_DENY := $(CARGO_DENY_ROOT)/bin/cargo-deny
CARGO_MUTANTS_VERSION := 27.1.0
CARGO_MUTANTS_ROOT := $(TARGET)/tools/cargo-mutants-$(CARGO_MUTANTS_VERSION)
CARGO_MUTANTS := $(CARGO_MUTANTS_ROOT)/bin/cargo-mutants
# Bounds a download where the machine has the command.
TIMEOUT := $(shell command -v timeout >/dev/null 2>&1 && echo timeout 120)

# glibc is linked in, of 2.36 or newer, which knows packed relocations: see docs/performance.md.
# With a triple of its own, flags do not reach build scripts. No path of this machine stays.
STATIC := $(TARGET)/static/ca-overlap
STATIC_TRIPLE := $(shell uname -m)-unknown-linux-gnu
STATIC_DIR := $(TARGET)/$(STATIC_TRIPLE)/release
STATIC_FLAGS := -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs \
	--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo --remap-path-prefix=$(CURDIR)=ca-overlap
STATIC_BUILD := --locked --release --target $(STATIC_TRIPLE)

##@ To see it work

.PHONY: demo
demo: need-rust ## Play a CA rotation on a real API server, without the webhook and with it
	@sh tests/control-plane/build.sh demo
	cargo build --locked --bin ca-overlap --example legacy-certgen
	$(TARGET)/debug/ca-overlap demo

.PHONY: figures
figures: need-rust ## Draw docs/figures anew, and what the README prints of it, by simulate
	CA_OVERLAP_RECORD=1 cargo test --locked --test simulate figures

##@ To build

.PHONY: build
build: need-rust ## Build the program for development: target/debug/ca-overlap
	cargo build --locked

.PHONY: release
release: need-rust ## Build the program for use where static does not work, such as macOS: target/release/ca-overlap
	cargo build --locked --release

.PHONY: static
static: need-rust ## Build the program that is shipped, statically linked: target/static/ca-overlap (about 7 minutes)
	RUSTFLAGS="$(STATIC_FLAGS)" cargo build $(STATIC_BUILD) --bin ca-overlap
	@mkdir -p $(dir $(STATIC))
	@cp $(STATIC_DIR)/ca-overlap $(STATIC)
	@headers=$$(readelf --wide --program-headers --dynamic $(STATIC)) || exit 1; \
	if echo "$$headers" | grep -E 'INTERP|NEEDED'; then \
		echo "$(STATIC) is linked dynamically" >&2; exit 1; fi
	@echo "$(STATIC) is statically linked, $$(wc -c <$(STATIC)) bytes"

.PHONY: man
man: need-rust ## Write the man pages: target/man
	cargo run --quiet --locked --example man-pages -- $(TARGET)/man

.PHONY: doc
doc: need-rust ## Build the documentation of the code: target/doc/ca_overlap
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

##@ To measure

.PHONY: measure
measure: static ## Measure what is shipped, alone: CPU per admission, memory, start, size (1 minute)
	$(BENCH) --mode measure

.PHONY: bench-quick
bench-quick: bench-programs ## Measure it beside other webhooks, the main scenarios (2 minutes)
	$(BENCH) --mode quick

.PHONY: bench
bench: bench-programs control-plane ## Measure everything beside other webhooks (25 minutes; wants a machine of its own)
	$(BENCH) --mode full

.PHONY: bench-instructions
bench-instructions: bench-programs ## Count instructions per request with valgrind, beside an allow-all server
	$(BENCH) --mode instructions

.PHONY: bench-publish
bench-publish: need-rust ## Put the last results of make bench into docs/
	cargo run --locked --example bench -- publish $(TARGET)/bench/full.json

##@ To check

.PHONY: test
test: control-plane ## Run all tests; the first time, the control plane is built before
	cargo test --locked --no-fail-fast

.PHONY: test-static
test-static: static control-plane ## Run the tests that start the program with the static one; needs root for an empty root
	cargo build --locked --example legacy-certgen
	CA_OVERLAP_TEST_PROGRAM=$(STATIC) cargo test --locked --no-fail-fast \
		--test program --test review --test demo --test rotation --test probe --test empty_root -- --include-ignored

.PHONY: fault-test
fault-test: fault-rig ## Break what breaks in production under load: no call may fail (3 minutes)
	$(TARGET)/fault-rig $(FAULT_PROGRAMS) -dir $(TARGET)/fault

.PHONY: fault-test-full
fault-test-full: fault-rig ## The same with the full totals of docs/reliability.md (20 minutes)
	$(TARGET)/fault-rig $(FAULT_PROGRAMS) -dir $(TARGET)/fault-full -full

.PHONY: rollout-test-full
rollout-test-full: control-plane ## 20 rollouts and 20 CA rotations under constant writes to a real API server (3 minutes)
	CI=true CA_OVERLAP_ROLLOUTS=20 cargo test --locked --test rotation rollouts -- --nocapture

.PHONY: mutants
mutants: $(CARGO_MUTANTS) ## Change each rule of decision and admission in turn: a test must notice (half an hour)
	PATH="$(abspath $(dir $(CARGO_MUTANTS))):$$PATH" tests/mutation/run.sh $(MUTANTS)

.PHONY: instructions
instructions: counted ## Count instructions and allocations per admission, compare with the accepted ones (2 minutes)
	cargo run --quiet --locked --example instructions -- compare $(STATIC_DIR)/examples

.PHONY: instructions-accept
instructions-accept: counted ## Accept what is counted now: writes benches/instructions.json
	cargo run --quiet --locked --example instructions -- accept $(STATIC_DIR)/examples

.PHONY: linear
linear: counted ## Check that hostile bodies of twice the size cost twice the instructions (2 minutes)
	cargo run --quiet --locked --example instructions -- linear $(STATIC_DIR)/examples

.PHONY: profile
profile: counted ## Show where the instructions of a review go: make profile REVIEW=tests/data/reviews/put.json
	valgrind -q --tool=callgrind --callgrind-out-file=$(TARGET)/profile.callgrind \
		$(STATIC_DIR)/examples/hot-path answer $(REVIEW) 1000
	callgrind_annotate --inclusive=yes $(TARGET)/profile.callgrind

.PHONY: keeper-scale
keeper-scale: control-plane ## Start the keeper over 10,000 Secrets, and print time, memory and CPU (3 minutes)
	CI=true CA_OVERLAP_SECRETS=10000 CA_OVERLAP_IDLE=60 cargo test --locked --test keeper many_secrets -- --nocapture

.PHONY: quiet-full
quiet-full: control-plane ## Apply the same again every second for ten minutes: nothing may be written
	CI=true CA_OVERLAP_QUIET=600 cargo test --locked --test keeper quiet:: -- --nocapture

.PHONY: corpus
corpus: control-plane ## Record what a real API server sends, anew, into tests/data/reviews
	CA_OVERLAP_RECORD=1 cargo test --locked --test api_server corpus

.PHONY: lint
lint: need-rust ## Check format and lints; warnings are errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

.PHONY: deny
deny: $(CARGO_DENY) ## Check licences, sources, banned and duplicate crates, and advisories if reachable
	$(CARGO_DENY) --locked check bans licenses sources
	@if $(TIMEOUT) $(CARGO_DENY) --locked fetch db; then \
		$(CARGO_DENY) --locked check advisories; \
	else \
		echo "advisories: the RustSec database is not reachable from here: NOT CHECKED" >&2; \
	fi

.PHONY: ci
ci: ## Everything that a change must pass, as .ci/run does it
	.ci/run

##@ To fuzz (needs nightly Rust; docs/fuzzing.md)

CARGO_FUZZ_VERSION := 0.13.2
CARGO_FUZZ_ROOT := $(TARGET)/tools/cargo-fuzz-$(CARGO_FUZZ_VERSION)
CARGO_FUZZ := $(CARGO_FUZZ_ROOT)/bin/cargo-fuzz
# For each of the six targets; 1200 s of each are 2 hours of one core.
FUZZ_SECONDS ?= 1200

.PHONY: fuzz-smoke
fuzz-smoke: $(CARGO_FUZZ) ## Fuzz each target for 20 seconds
	CARGO_FUZZ=$(CARGO_FUZZ) sh tests/fuzz/run.sh 20

.PHONY: fuzz-long
fuzz-long: $(CARGO_FUZZ) ## Fuzz each target for FUZZ_SECONDS (1200: 2 hours in all); goes on where the last run ended
	CARGO_FUZZ=$(CARGO_FUZZ) sh tests/fuzz/run.sh $(FUZZ_SECONDS)

.PHONY: fuzz-seeds
fuzz-seeds: need-rust ## Make the certificates anew that fuzz inputs are built from (tests/fuzz/pool)
	CA_OVERLAP_RECORD=1 cargo test --locked --test corpus pool

$(CARGO_FUZZ): | need-rust need-nightly
	@echo "installing cargo-fuzz $(CARGO_FUZZ_VERSION) below $(TARGET)/tools (two minutes, once)" >&2
	cargo install --quiet --locked --debug --version $(CARGO_FUZZ_VERSION) \
		--root $(CARGO_FUZZ_ROOT) --target-dir $(CARGO_FUZZ_ROOT)/build cargo-fuzz
	rm -rf $(CARGO_FUZZ_ROOT)/build

.PHONY: need-nightly
need-nightly:
	@cargo +nightly --version >/dev/null 2>&1 || { \
		echo "nightly Rust is missing: fuzzing needs it; rustup toolchain install nightly" >&2; exit 1; }

##@ Other

.PHONY: control-plane
control-plane: need-rust ## Find or build etcd, kube-apiserver, kube-controller-manager and kubectl for tests
	@sh tests/control-plane/build.sh

.PHONY: clean
clean: ## Remove what cargo built; keeps the control plane and the tools
	rm -rf $(TARGET)/debug $(TARGET)/release $(TARGET)/static $(TARGET)/*-linux-* $(TARGET)/doc $(TARGET)/tmp $(TARGET)/ci $(TARGET)/mutation

.PHONY: distclean
distclean: ## Remove everything that was built
	rm -rf $(TARGET)

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The hot path, built as the shipped program is, with symbols for profiles.
.PHONY: counted
counted: need-rust need-valgrind
	RUSTFLAGS="$(STATIC_FLAGS)" cargo rustc $(STATIC_BUILD) --example hot-path -- -C strip=none
	RUSTFLAGS="$(STATIC_FLAGS)" cargo build $(STATIC_BUILD) --example allocations

REVIEW ?= tests/data/reviews/put.json

.PHONY: need-valgrind
need-valgrind:
	@command -v valgrind >/dev/null 2>&1 || { \
		echo "valgrind is missing: install the package valgrind (3.19 or newer)" >&2; exit 1; }

BENCH = cargo run --locked --example bench -- run --program $(STATIC) \
	--allow-all $(STATIC_DIR)/examples/allow_all --peers $(TARGET)/bench/bin --out $(TARGET)/bench

.PHONY: bench-programs
bench-programs: static need-go
	RUSTFLAGS="$(STATIC_FLAGS)" cargo build $(STATIC_BUILD) --example allow_all
	mkdir -p $(TARGET)/bench/bin
	go -C benches/peer build -trimpath -ldflags='-s -w' -o "$(abspath $(TARGET))/bench/bin/" ./...

# Which program is tested: make fault-test FAULT_PRODUCT=target/static/ca-overlap, after make static.
FAULT_PRODUCT := $(TARGET)/debug/ca-overlap
FAULT_PROGRAMS = -product $(FAULT_PRODUCT) -clock-product $(TARGET)/debug/ca-overlap \
	-faulty $(TARGET)/debug/examples/faulty-webhook

.PHONY: fault-rig
fault-rig: need-rust need-go
	cargo build --locked --bin ca-overlap --example faulty-webhook
	go -C tests/fault/rig build -o "$(abspath $(TARGET))/fault-rig" .

.PHONY: need-go
need-go:
	@command -v go >/dev/null 2>&1 || { \
		echo "go is missing: install Go 1.24 or newer, see https://go.dev/dl" >&2; exit 1; }

.PHONY: need-rust
need-rust:
	@command -v cargo >/dev/null 2>&1 || { \
		echo "cargo is missing: install Rust 1.89 or newer, see https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null 2>&1 || { \
		echo "cc is missing: install a C compiler (aws-lc is built from C), such as gcc" >&2; exit 1; }

$(CARGO_DENY): | need-rust
	@echo "installing cargo-deny $(CARGO_DENY_VERSION) below $(TARGET)/tools (about a minute, once)" >&2
	cargo install --quiet --locked --debug --version $(CARGO_DENY_VERSION) \
		--root $(CARGO_DENY_ROOT) --target-dir $(CARGO_DENY_ROOT)/build cargo-deny
	rm -rf $(CARGO_DENY_ROOT)/build

$(CARGO_MUTANTS): | need-rust
	@echo "installing cargo-mutants $(CARGO_MUTANTS_VERSION) below $(TARGET)/tools (two minutes, once)" >&2
	cargo install --quiet --locked --debug --version $(CARGO_MUTANTS_VERSION) \
		--root $(CARGO_MUTANTS_ROOT) --target-dir $(CARGO_MUTANTS_ROOT)/build cargo-mutants
	rm -rf $(CARGO_MUTANTS_ROOT)/build
