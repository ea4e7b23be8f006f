##@ To release (docs/release.md)

DIST ?= $(TARGET)/dist
ARCHES ?= amd64 arm64
SBOM = $(DIST)/ca-overlap_$(VERSION)_sbom.cdx.json
RELEASE_IMAGE = $(DIST)/ca-overlap_$(VERSION)_image.tar
RELEASE = VERSION='$(VERSION)' DIST='$(DIST)' ARCHES='$(ARCHES)' REGISTRY='$(REGISTRY)' HELM='$(HELM)' CRANE='$(CRANE)' \
	COSIGN='$(COSIGN)' STATIC='$(or $(PROGRAM),$(STATIC))' ARCH='$(HOST_ARCH)' IMAGE_TAR='$(RELEASE_IMAGE)' build/release.sh

.PHONY: sbom
sbom: $(CARGO_CYCLONEDX) ## List the linked packages as CycloneDX: target/dist/ca-overlap_VERSION_sbom.cdx.json
	@mkdir -p $(DIST)
	SOURCE_DATE_EPOCH=$(or $(shell git log -1 --format=%ct 2>/dev/null),0) \
		$(CARGO_CYCLONEDX) cyclonedx --quiet --format json --spec-version 1.5 --target $(STATIC_TRIPLE) --describe binaries
	@sed 's|path+file://$(CURDIR)#|path+file:///ca-overlap#|' ca-overlap_bin.cdx.json >$(SBOM)
	@# cargo-cyclonedx writes a file for each member of the workspace.
	@rm -f *.cdx.json benches/*.cdx.json tests/devtools/*.cdx.json
	@echo "$(SBOM): $$(grep -c '"purl": "pkg:cargo/' $(SBOM)) packages"

.PHONY: release-check
release-check: ## Check that tag, Cargo.toml, chart, manifests and CHANGELOG have the same version
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
