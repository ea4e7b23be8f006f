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
CARGO_AUDITABLE_VERSION := 0.7.7
CARGO_AUDITABLE_ROOT := $(TARGET)/tools/cargo-auditable-$(CARGO_AUDITABLE_VERSION)
CARGO_AUDITABLE := $(CARGO_AUDITABLE_ROOT)/bin/cargo-auditable
CARGO_CYCLONEDX_VERSION := 0.5.9
CARGO_CYCLONEDX_ROOT := $(TARGET)/tools/cargo-cyclonedx-$(CARGO_CYCLONEDX_VERSION)
CARGO_CYCLONEDX := $(CARGO_CYCLONEDX_ROOT)/bin/cargo-cyclonedx
# Tools in Go, each of the version and with the dependencies that it was released with.
HELM := $(TARGET)/tools/helm-v4.3.1/helm
KIND := $(TARGET)/tools/kind-v0.33.0/kind
CRANE := $(TARGET)/tools/crane-v0.22.1/crane
COSIGN := $(TARGET)/tools/cosign-v3.1.3/cosign
ACTIONLINT := $(TARGET)/tools/actionlint-v1.7.12/actionlint
GO_TOOLS := $(HELM) $(KIND) $(CRANE) $(COSIGN) $(ACTIONLINT)
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
static: need-rust $(CARGO_AUDITABLE) ## Build the program that is shipped, statically linked: target/static/ca-overlap (about 7 minutes)
	RUSTFLAGS="$(STATIC_FLAGS)" $(CARGO_AUDITABLE) auditable build $(STATIC_BUILD) --bin ca-overlap
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

##@ To package

# The name that overlays/kind expects.
IMAGE ?= ca-overlap:dev
# What to pack instead of the program that `make static` builds here, by platform:
#   make image-tar IMAGE_PROGRAMS='amd64=FILE arm64=FILE'
IMAGE_PROGRAMS ?=
IMAGE_DIR := $(TARGET)/image
SBOM = $(DIST)/ca-overlap_$(VERSION)_sbom.cdx.json
IMAGE_TAR ?= $(IMAGE_DIR)/ca-overlap.tar
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
HOST_ARCH := $(subst aarch64,arm64,$(subst x86_64,amd64,$(shell uname -m)))
PACK := $(abspath $(IMAGE_DIR))/pack
PACK_PROGRAM = PACK='$(PACK)' IMAGE='$(IMAGE)' IMAGE_DIR='$(IMAGE_DIR)' IMAGE_TAR='$(IMAGE_TAR)' \
	VERSION='$(VERSION)' IMAGE_PROGRAMS='$(or $(IMAGE_PROGRAMS),$(HOST_ARCH)=$(STATIC))' build/image.sh

.PHONY: image
image: $(if $(IMAGE_PROGRAMS),,static) ## Build the image with Docker (BuildKit): ca-overlap:dev
	$(PACK_PROGRAM) docker

.PHONY: image-tar
image-tar: $(if $(IMAGE_PROGRAMS),,static) packer ## Build the image without an engine: target/image/ca-overlap.tar
	$(PACK_PROGRAM) tar

.PHONY: sbom
sbom: $(CARGO_CYCLONEDX) ## List what is linked in, as CycloneDX: target/dist/ca-overlap_VERSION_sbom.cdx.json
	@mkdir -p $(DIST)
	SOURCE_DATE_EPOCH=$(or $(shell git log -1 --format=%ct 2>/dev/null),0) \
		$(CARGO_CYCLONEDX) cyclonedx --quiet --format json --spec-version 1.5 --target $(STATIC_TRIPLE) --describe binaries
	@sed 's|path+file://$(CURDIR)#|path+file:///ca-overlap#|' ca-overlap_bin.cdx.json >$(SBOM) && rm ca-overlap_bin.cdx.json
	@echo "$(SBOM): $$(grep -c '"purl": "pkg:cargo/' $(SBOM)) packages"

# Packs any files: target/image/pack -help.
.PHONY: packer
packer: need-go
	@mkdir -p $(IMAGE_DIR)
	go -C build/image build -trimpath -o "$(PACK)" .

##@ To release (docs/release.md)

DIST ?= $(TARGET)/dist
ARCHES ?= amd64 arm64
REGISTRY ?= ghcr.io/ca-overlap
RELEASE = VERSION='$(VERSION)' DIST='$(DIST)' ARCHES='$(ARCHES)' REGISTRY='$(REGISTRY)' HELM='$(HELM)' CRANE='$(CRANE)' \
	COSIGN='$(COSIGN)' STATIC='$(or $(PROGRAM),$(STATIC))' ARCH='$(HOST_ARCH)' IMAGE_TAR='$(RELEASE_IMAGE)' build/release.sh
RELEASE_IMAGE = $(DIST)/ca-overlap_$(VERSION)_image.tar

.PHONY: release-check
release-check: ## Check that tag, Cargo.toml, chart, manifests and CHANGELOG are of one version
	$(RELEASE) check

.PHONY: release-archive
release-archive: $(if $(PROGRAM),,static) ## Pack the program of this platform (PROGRAM=FILE HOST_ARCH=arm64 packs another)
	$(RELEASE) archive

.PHONY: release-files
release-files: $(HELM) sbom ## Make image, chart, SBOM, krew manifest and checksums from the archives of all platforms
	$(RELEASE) unpack
	$(MAKE) --no-print-directory image-tar IMAGE='$(REGISTRY)/ca-overlap:$(VERSION)' IMAGE_TAR='$(RELEASE_IMAGE)' \
		IMAGE_PROGRAMS='$(foreach arch,$(ARCHES),$(arch)=$(DIST)/.programs/$(arch)/ca-overlap)'
	$(RELEASE) chart
	$(RELEASE) krew
	$(RELEASE) checksums

.PHONY: release-push
release-push: $(CRANE) $(HELM) ## Push image and chart to REGISTRY; log in before, by crane auth login and helm registry login
	$(RELEASE) push

.PHONY: release-login
release-login: $(CRANE) $(HELM) ## Log in to REGISTRY as REGISTRY_USER, with the password of REGISTRY_PASSWORD
	@printf '%s' "$$REGISTRY_PASSWORD" | $(CRANE) auth login $(firstword $(subst /, ,$(REGISTRY))) -u "$$REGISTRY_USER" --password-stdin
	@printf '%s' "$$REGISTRY_PASSWORD" | $(HELM) registry login $(firstword $(subst /, ,$(REGISTRY))) -u "$$REGISTRY_USER" --password-stdin

.PHONY: release-sign
release-sign: $(COSIGN) ## Sign image, chart and checksums without a key, attest the SBOM; in the workflow
	$(RELEASE) sign

.PHONY: release-publish
release-publish: ## Make the GitHub release with all files; in the workflow
	$(RELEASE) publish

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

.PHONY: bench-profile
bench-profile: need-rust need-valgrind ## Show where the instructions of whole requests go, beside an allow-all server
	RUSTFLAGS="$(STATIC_FLAGS)" cargo rustc $(STATIC_BUILD) --bin ca-overlap -- -C strip=none
	mkdir -p $(TARGET)/bench/symbols && cp $(STATIC_DIR)/ca-overlap $(TARGET)/bench/symbols/
	RUSTFLAGS="$(STATIC_FLAGS)" cargo rustc $(STATIC_BUILD) --example allow_all -- -C strip=none
	cargo run --locked --example bench -- run --mode profile --program $(TARGET)/bench/symbols/ca-overlap \
		--allow-all $(STATIC_DIR)/examples/allow_all

.PHONY: bench-publish
bench-publish: need-rust ## Put the last results of make bench into docs/
	cargo run --locked --example bench -- publish $(TARGET)/bench/full.json

##@ To check

.PHONY: test
test: control-plane helm ## Run all tests; the first time, the control plane is built before
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

# A real node: see docs/testing.md. It says which of root, capabilities and packages are missing.
# One test of it: make node-test NODE_TESTS=handshakes.
NODE := $(TARGET)/node
NODE_RUN = $(NODE)/tools/node run -images $(NODE)/images -state $(NODE)/state -logs $(NODE)/logs
NODE_SUITE = cargo test --locked --test cluster -- --ignored --test-threads=1 --nocapture

.PHONY: node-test
node-test: node-images helm ## Run the suite on a real node, without a container engine; needs root (8 minutes)
	go -C tests/cluster vet ./...
	go -C tests/cluster test -count=1 ./...
	cargo test --locked --test cluster --no-run
	$(NODE_RUN) -- $(NODE_SUITE) --skip long:: $(NODE_TESTS)

.PHONY: node-test-full
node-test-full: node-test node-earlier ## The same, an upgrade from an earlier build, and a kubelet as it is by default (25 minutes)
	$(NODE_RUN) -sync 0 -- $(NODE_SUITE) long::

# What `node-test-full` upgrades from: the last tag, or the last commit before this one that changed
# the program.
EARLIER ?= $(shell git describe --tags --abbrev=0 HEAD^ 2>/dev/null || \
	git log --first-parent --skip=1 -n 1 --format=%H -- src Cargo.lock)

.PHONY: node-earlier
node-earlier: need-rust packer
	PACK='$(PACK)' ARCH='$(HOST_ARCH)' IMAGES=$(NODE)/images COMMIT='$(EARLIER)' OUT=$(NODE)/earlier \
		sh tests/cluster/earlier.sh

.PHONY: kind-test
kind-test: $(KIND) control-plane ## Run the suite on kind clusters of three Kubernetes versions; needs Docker (KIND_VERSIONS='1.33')
	@docker info >/dev/null 2>&1 || { \
		echo "no Docker engine answers, and kind needs one; make node-test runs the same suite without" >&2; exit 1; }
	$(MAKE) --no-print-directory node-images helm
	KIND="$(abspath $(KIND))" KUBECTL="$(abspath $(TARGET))/control-plane/bin/kubectl" IMAGES=$(TARGET)/node/images \
		WORK="$(abspath $(TARGET))/kind" tests/kind/run.sh $(KIND_VERSIONS)

.PHONY: kind-check
kind-check: $(KIND) ## Check the configuration of kind-test as far as that goes without Docker
	KIND="$(abspath $(KIND))" tests/kind/run.sh --check

.PHONY: package-test
package-test: need-go kind-check workflow-lint ## Check what packs and releases: image writer, kind's configuration, workflows
	go -C build/image vet ./...
	go -C build/image test -count=1 ./...

.PHONY: workflow-lint
workflow-lint: $(ACTIONLINT) ## Lint the GitHub workflows: they call make targets, and nothing else
	$(ACTIONLINT) -color
	@if grep -n 'run:' .github/workflows/* | grep -v 'run: make '; then \
		echo "the lines above run something else than a make target" >&2; exit 1; fi
	@if grep -n 'uses:' .github/workflows/* | grep -v -E '@[0-9a-f]{40} # v[0-9]'; then \
		echo "the actions above are not pinned to a commit" >&2; exit 1; fi

.PHONY: chart-test
chart-test: control-plane helm ## Check the Helm chart: as the kustomizations, on a real API server
	cargo test --locked --test manifests chart
	cargo test --locked --test chart_cluster

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

# The tests of an empty root and of a real node need root.
.PHONY: ci-as-root
ci-as-root:
	if [ "$$(id -u)" = 0 ]; then .ci/run; else sudo env PATH="$$PATH" HOME="$$HOME" .ci/run; fi

##@ To fuzz (needs nightly Rust; docs/fuzzing.md)

CARGO_FUZZ_VERSION := 0.13.2
CARGO_FUZZ_ROOT := $(TARGET)/tools/cargo-fuzz-$(CARGO_FUZZ_VERSION)
CARGO_FUZZ := $(CARGO_FUZZ_ROOT)/bin/cargo-fuzz
# For each of the six targets; 1200 s of each are 2 hours of one core.
FUZZ_SECONDS ?= 1200

.PHONY: fuzz-smoke
fuzz-smoke: $(CARGO_FUZZ) ## Fuzz each target for 20 seconds
	CARGO_FUZZ=$(CARGO_FUZZ) CA_OVERLAP_FUZZ_SEED=1 sh tests/fuzz/run.sh 20

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

.PHONY: helm
helm: $(HELM) ## Find or build helm, for the tests of the chart

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

# Images for a node that can pull nothing: the product, and what the suite runs in pods.
.PHONY: node-images
node-images: static node-tools packer
	cargo build --locked --example legacy-certgen
	PACK='$(PACK)' ARCH='$(HOST_ARCH)' IMAGES=$(NODE)/images VERSION='$(VERSION)' PRODUCT=$(STATIC) \
		PEER=$(NODE)/tools/peer CERTGEN=$(TARGET)/debug/examples/legacy-certgen sh tests/cluster/images.sh

.PHONY: node-tools
node-tools: need-rust need-go
	@sh tests/control-plane/build.sh node
	@mkdir -p $(NODE)/tools
	CGO_ENABLED=0 go -C tests/cluster build -trimpath -ldflags='-s -w' -o "$(abspath $(NODE))/tools/" ./...

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

$(CARGO_AUDITABLE): | need-rust
	@echo "installing cargo-auditable $(CARGO_AUDITABLE_VERSION) below $(TARGET)/tools (half a minute, once)" >&2
	cargo install --quiet --locked --debug --version $(CARGO_AUDITABLE_VERSION) \
		--root $(CARGO_AUDITABLE_ROOT) --target-dir $(CARGO_AUDITABLE_ROOT)/build cargo-auditable
	rm -rf $(CARGO_AUDITABLE_ROOT)/build

$(CARGO_CYCLONEDX): | need-rust
	@echo "installing cargo-cyclonedx $(CARGO_CYCLONEDX_VERSION) below $(TARGET)/tools (a minute, once)" >&2
	cargo install --quiet --locked --debug --version $(CARGO_CYCLONEDX_VERSION) \
		--root $(CARGO_CYCLONEDX_ROOT) --target-dir $(CARGO_CYCLONEDX_ROOT)/build cargo-cyclonedx
	rm -rf $(CARGO_CYCLONEDX_ROOT)/build

# Where to get each from, less the version. go install compares what it downloads with the public
# checksum database, unless its settings say otherwise.
PACKAGE_helm := helm.sh/helm/v4/cmd/helm
PACKAGE_kind := sigs.k8s.io/kind
PACKAGE_crane := github.com/google/go-containerregistry/cmd/crane
PACKAGE_cosign := github.com/sigstore/cosign/v3/cmd/cosign
PACKAGE_actionlint := github.com/rhysd/actionlint/cmd/actionlint

$(GO_TOOLS): | need-go
	@echo "building $(notdir $(@D)) below $(TARGET)/tools (a minute or two, once)" >&2
	GOBIN="$(abspath $(@D))" go install -trimpath -ldflags='-s -w' \
		$(PACKAGE_$(@F))@$(patsubst $(@F)-%,%,$(notdir $(@D)))
