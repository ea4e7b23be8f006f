##@ To release (docs/release.md)

DIST ?= $(TARGET)/dist
PLATFORMS ?= linux_amd64 linux_arm64 darwin_amd64 darwin_arm64
LINUX_ARCHES = $(patsubst linux_%,%,$(filter linux_%,$(PLATFORMS)))
# What release-archive packs: the static program on Linux, and on macOS one for the commands.
HOST_OS := $(shell uname -s | tr 'A-Z' 'a-z')
PLATFORM ?= $(HOST_OS)_$(HOST_ARCH)
BUILT = $(if $(filter darwin,$(HOST_OS)),$(TARGET)/release/ca-overlap,$(STATIC))
TRIPLE = $(subst amd64,x86_64,$(subst arm64,aarch64,$(lastword $(subst _, ,$(PLATFORM)))))-$(if $(filter darwin_%,$(PLATFORM)),apple-darwin,unknown-linux-gnu)
BESIDE := $(TARGET)/beside
KUBECTL ?= kubectl
SBOM = $(DIST)/ca-overlap_$(VERSION)_sbom.cdx.json
RELEASE_IMAGE = $(DIST)/ca-overlap_$(VERSION)_image.tar
RELEASE = VERSION='$(VERSION)' DIST='$(DIST)' PLATFORMS='$(PLATFORMS)' REGISTRY='$(REGISTRY)' REPOSITORY='$(REPOSITORY)' \
	HELM='$(HELM)' KUBECTL='$(KUBECTL)' CRANE='$(CRANE)' COSIGN='$(COSIGN)' PROGRAM='$(or $(PROGRAM),$(BUILT))' \
	PLATFORM='$(PLATFORM)' MAN=$(TARGET)/man COMPLETIONS=$(BESIDE)/completions LICENCES=$(BESIDE)/LICENCES.txt \
	IMAGE_TAR='$(RELEASE_IMAGE)' build/release.sh

.PHONY: sbom
sbom: $(CARGO_CYCLONEDX) ## List the linked packages as CycloneDX: target/dist/ca-overlap_VERSION_sbom.cdx.json
	@mkdir -p $(DIST)
	SOURCE_DATE_EPOCH=$(or $(shell git log -1 --format=%ct 2>/dev/null),0) \
		$(CARGO_CYCLONEDX) cyclonedx --quiet --format json --spec-version 1.5 --target $(STATIC_TRIPLE) --describe binaries
	@sed 's|path+file://$(CURDIR)#|path+file:///ca-overlap#|' ca-overlap_bin.cdx.json >$(SBOM)
	@# cargo-cyclonedx writes a file for each member of the workspace.
	@rm -f *.cdx.json benches/*.cdx.json tests/devtools/*.cdx.json
	@echo "$(SBOM): $$(grep -c '"purl": "pkg:cargo/' $(SBOM)) packages"

.PHONY: release-test
release-test: $(HELM) licences ## Check archives, chart, install.yaml and krew manifest, with a stand-in for program and owner
	KUBECTL="$$(command -v kubectl || echo $(TARGET)/control-plane/bin/kubectl)" \
		VERSION='$(VERSION)' HELM='$(HELM)' LICENCES=$(BESIDE)/LICENCES.txt build/release-test.sh

.PHONY: release-check
release-check: ## Check that an owner is named, and that tag, Cargo.toml, chart and CHANGELOG have one version
	$(RELEASE) check

.PHONY: release-archive
release-archive: $(if $(PROGRAM),,$(if $(filter darwin,$(HOST_OS)),commands,static)) man completions licences ## Pack the program of this platform (PROGRAM=FILE PLATFORM=linux_arm64 packs another)
	$(RELEASE) archive

# The servers run on Linux. For macOS there are the commands.
.PHONY: commands
commands: need-rust
	cargo build --locked --release --package ca-overlap --bin ca-overlap

.PHONY: completions
completions: need-rust ## Write the completions of all shells: target/beside/completions
	@mkdir -p $(BESIDE)/completions
	for shell in bash:bash zsh:zsh fish:fish powershell:ps1 elvish:elv; do \
		cargo run --quiet --locked --package ca-overlap --bin ca-overlap -- completions $${shell%:*} \
			>$(BESIDE)/completions/ca-overlap.$${shell#*:} || exit 1; \
	done

.PHONY: licences
licences: need-rust ## Write the licences of all linked packages: target/beside/LICENCES.txt
	@mkdir -p $(BESIDE)
	TRIPLE=$(TRIPLE) sh build/licences.sh >$(BESIDE)/LICENCES.txt

.PHONY: release-files
release-files: $(HELM) sbom ## Make image, chart, install.yaml, SBOM, krew manifest and checksums from the archives of all platforms
	$(RELEASE) unpack
	$(MAKE) --no-print-directory image-tar IMAGE='$(REGISTRY)/ca-overlap:$(VERSION)' IMAGE_TAR='$(RELEASE_IMAGE)' \
		IMAGE_PROGRAMS='$(foreach arch,$(LINUX_ARCHES),$(arch)=$(DIST)/.programs/$(arch)/ca-overlap)'
	$(RELEASE) chart
	$(RELEASE) manifest
	$(RELEASE) krew
	$(RELEASE) checksums

.PHONY: release-login
release-login: $(CRANE) $(HELM) ## Log in to REGISTRY as REGISTRY_USER with REGISTRY_PASSWORD
	@printf '%s' "$$REGISTRY_PASSWORD" | $(CRANE) auth login $(firstword $(subst /, ,$(REGISTRY))) -u "$$REGISTRY_USER" --password-stdin
	@printf '%s' "$$REGISTRY_PASSWORD" | $(HELM) registry login $(firstword $(subst /, ,$(REGISTRY))) -u "$$REGISTRY_USER" --password-stdin

.PHONY: release-push
release-push: $(CRANE) $(HELM) ## Push image and chart to REGISTRY
	$(RELEASE) push

.PHONY: release-sign
release-sign: $(COSIGN) ## Sign image, chart and checksums without a key, and attest the SBOM (in the workflow)
	$(RELEASE) sign

.PHONY: release-publish
release-publish: ## Create the GitHub release with all files (in the workflow)
	$(RELEASE) publish
