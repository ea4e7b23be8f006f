# `make` lists all targets. Most need only Rust, a C compiler and, for the test control plane, Go (or
# KUBEBUILDER_ASSETS).

.DEFAULT_GOAL := help
SHELL := /bin/sh

TARGET := $(or $(CARGO_TARGET_DIR),target)
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
HOST_ARCH := $(subst aarch64,arm64,$(subst x86_64,amd64,$(shell uname -m)))

##@ To begin

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: need-rust ## Play a CA rotation on a real API server: without ca-overlap, with the webhook, with all of it
	@sh tests/control-plane/build.sh demo
	cargo build --locked --workspace --profile demo --bin ca-overlap --example legacy-certgen --example demo
	$(TARGET)/demo/examples/demo

.PHONY: clean
clean: ## Remove what cargo built; keep the control plane and the tools
	rm -rf $(TARGET)/debug $(TARGET)/demo $(TARGET)/release $(TARGET)/static $(TARGET)/*-linux-* $(TARGET)/doc $(TARGET)/tmp $(TARGET)/ci $(TARGET)/mutation

.PHONY: distclean
distclean: ## Remove everything that was built or downloaded
	rm -rf $(TARGET)


include make/owner.mk make/tools.mk make/build.mk make/test.mk make/measure.mk make/fuzz.mk make/release.mk
