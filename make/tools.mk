# The tools of the targets: pinned versions below target/tools, each built once, and checks that say
# what to install.

TOOLS := $(TARGET)/tools
# Rust tools: NAME-VERSION/bin/NAME.
CARGO_AUDITABLE := $(TOOLS)/cargo-auditable-0.7.7/bin/cargo-auditable
CARGO_CYCLONEDX := $(TOOLS)/cargo-cyclonedx-0.5.9/bin/cargo-cyclonedx
CARGO_DENY := $(TOOLS)/cargo-deny-0.20.2/bin/cargo-deny
CARGO_FUZZ := $(TOOLS)/cargo-fuzz-0.13.2/bin/cargo-fuzz
CARGO_MUTANTS := $(TOOLS)/cargo-mutants-27.1.0/bin/cargo-mutants
CARGO_TOOLS := $(CARGO_AUDITABLE) $(CARGO_CYCLONEDX) $(CARGO_DENY) $(CARGO_FUZZ) $(CARGO_MUTANTS)
# Go tools: NAME-vVERSION/NAME, with the dependencies of their release.
ACTIONLINT := $(TOOLS)/actionlint-v1.7.12/actionlint
COSIGN := $(TOOLS)/cosign-v3.1.3/cosign
CRANE := $(TOOLS)/crane-v0.22.1/crane
HELM := $(TOOLS)/helm-v4.3.1/helm
HELM3 := $(TOOLS)/helm3-v3.19.4/helm
KIND := $(TOOLS)/kind-v0.33.0/kind
VALE := $(TOOLS)/vale-v3.22.0/vale
GO_TOOLS := $(ACTIONLINT) $(COSIGN) $(CRANE) $(HELM) $(HELM3) $(KIND) $(VALE)

$(CARGO_TOOLS): root = $(patsubst %/bin,%,$(@D))
$(CARGO_TOOLS): | need-rust
	@echo "installing $(@F) below $(TOOLS) (a minute or two, once)" >&2
	cargo install --quiet --locked --debug --version $(patsubst $(@F)-%,%,$(notdir $(root))) \
		--root $(root) --target-dir $(root)/build $(@F)
	rm -rf $(root)/build

# The Go package of each tool. By default go install verifies downloads with the public checksum
# database.
PACKAGE_actionlint := github.com/rhysd/actionlint/cmd/actionlint
PACKAGE_cosign := github.com/sigstore/cosign/v3/cmd/cosign
PACKAGE_crane := github.com/google/go-containerregistry/cmd/crane
PACKAGE_helm = helm.sh/helm/$(if $(filter helm3-%,$(notdir $(@D))),v3,v4)/cmd/helm
# Helm 3 reads its version of Kubernetes from its link flags, and else takes 1.20 for it.
HELM3_FLAGS := $(foreach package,lint/rules chartutil,$(foreach part,Major=1 Minor=34,-X helm.sh/helm/v3/pkg/$(package).k8sVersion$(part)))
$(HELM3): LINK_FLAGS = $(HELM3_FLAGS)
PACKAGE_kind := sigs.k8s.io/kind
PACKAGE_vale := github.com/vale-cli/vale/v3/cmd/vale

$(GO_TOOLS): | need-go
	@echo "building $(@F) below $(TOOLS) (a minute or two, once)" >&2
	GOBIN="$(abspath $(@D))" go install -trimpath -ldflags='-s -w $(LINK_FLAGS)' \
		$(PACKAGE_$(@F))@$(lastword $(subst -, ,$(notdir $(@D))))

.PHONY: need-rust
need-rust:
	@command -v cargo >/dev/null 2>&1 || { \
		echo "cargo is missing: install Rust 1.89 or newer, see https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null 2>&1 || { \
		echo "cc is missing: install a C compiler (aws-lc is built from C), such as gcc" >&2; exit 1; }

.PHONY: need-nightly
need-nightly:
	@cargo +nightly --version >/dev/null 2>&1 || { \
		echo "nightly Rust is missing: run rustup toolchain install nightly" >&2; exit 1; }

.PHONY: need-go
need-go:
	@command -v go >/dev/null 2>&1 || { \
		echo "go is missing: install Go 1.25 or newer, see https://go.dev/dl" >&2; exit 1; }

.PHONY: need-valgrind
need-valgrind:
	@command -v valgrind >/dev/null 2>&1 || { \
		echo "valgrind is missing: install the package valgrind (3.19 or newer)" >&2; exit 1; }
