# `make` lists what there is to do. Nothing here needs more than Rust, a C compiler and, for the
# test control plane, Go (or KUBEBUILDER_ASSETS).

.DEFAULT_GOAL := help
SHELL := /bin/sh

TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY_ROOT := $(TARGET)/tools/cargo-deny-$(CARGO_DENY_VERSION)
CARGO_DENY := $(CARGO_DENY_ROOT)/bin/cargo-deny
# Bounds a download where the machine has the command.
TIMEOUT := $(shell command -v timeout >/dev/null 2>&1 && echo timeout 120)

##@ To see it work

.PHONY: demo
demo: control-plane ## Play a CA rotation on a real API server, without the webhook and with it
	cargo build --locked --bin ca-overlap --example legacy-certgen
	$(TARGET)/debug/ca-overlap demo

##@ To build

.PHONY: build
build: need-rust ## Build the program for development: target/debug/ca-overlap
	cargo build --locked

.PHONY: release
release: need-rust ## Build the program for use: target/release/ca-overlap (fat LTO: about 7 minutes)
	cargo build --locked --release

.PHONY: doc
doc: need-rust ## Build the documentation of the code: target/doc/ca_overlap
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

.PHONY: measure
measure: release ## Measure the release build: CPU per admission, memory, start, size
	cargo run --locked --example measure -- $(TARGET)/release/ca-overlap

##@ To check

.PHONY: test
test: control-plane ## Run all tests; the first time, the control plane is built before
	cargo test --locked --no-fail-fast

.PHONY: fault-test
fault-test: fault-rig ## Break what breaks in production under load: no call may fail (3 minutes)
	$(TARGET)/fault-rig $(FAULT_PROGRAMS) -dir $(TARGET)/fault

.PHONY: fault-test-full
fault-test-full: fault-rig ## The same with the full totals of docs/reliability.md (20 minutes)
	$(TARGET)/fault-rig $(FAULT_PROGRAMS) -dir $(TARGET)/fault-full -full

.PHONY: rollout-test-full
rollout-test-full: control-plane ## 20 rollouts and 20 CA rotations under constant writes to a real API server (3 minutes)
	CI=true CA_OVERLAP_ROLLOUTS=20 cargo test --locked --test rotation rollouts -- --nocapture

.PHONY: keeper-scale
keeper-scale: control-plane ## Start the keeper over 10,000 Secrets, and print time and memory (2 minutes)
	CI=true CA_OVERLAP_SECRETS=10000 cargo test --locked --test keeper many_secrets -- --nocapture

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

##@ Other

.PHONY: control-plane
control-plane: need-rust ## Find or build etcd, kube-apiserver and kubectl for tests and demo
	@sh tests/control-plane/build.sh

.PHONY: clean
clean: ## Remove what cargo built; keeps the control plane and the tools
	rm -rf $(TARGET)/debug $(TARGET)/release $(TARGET)/doc $(TARGET)/tmp $(TARGET)/ci

.PHONY: distclean
distclean: ## Remove everything that was built
	rm -rf $(TARGET)

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

FAULT_PROGRAMS := -product $(TARGET)/debug/ca-overlap -faulty $(TARGET)/debug/examples/faulty-webhook

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
