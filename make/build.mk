##@ To build

# The static program links glibc 2.36 or newer, which supports packed relocations: see
# docs/performance.md. With --target the flags do not apply to build scripts. The path remapping
# keeps paths of this machine out of the program, and the paths of crates, which panics name, short.
STATIC := $(TARGET)/static/ca-overlap
STATIC_TRIPLE := $(shell uname -m)-unknown-linux-gnu
STATIC_DIR := $(TARGET)/$(STATIC_TRIPLE)/release
CARGO_DIR := $(or $(CARGO_HOME),$(HOME)/.cargo)
# Where the sources of the crates are; cargo names the directory, once it has fetched them.
CRATES = $(shell cargo fetch --locked >&2; ls -d "$(CARGO_DIR)"/registry/src/*)
STATIC_FLAGS = -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs \
	--remap-path-prefix=$(CARGO_DIR)=cargo $(CRATES:%=--remap-path-prefix=%=cargo) \
	--remap-path-prefix=$(CURDIR)=ca-overlap
STATIC_BUILD := --locked --release --target $(STATIC_TRIPLE)
# Each crate is optimised for speed, then the whole program again, for size: see docs/decisions.
STATIC_LINK := -C opt-level=s

.PHONY: static
static: need-rust $(CARGO_AUDITABLE) ## Build the statically linked program that is shipped: target/static/ca-overlap (about 7 minutes)
	RUSTFLAGS="$(STATIC_FLAGS)" $(CARGO_AUDITABLE) auditable rustc $(STATIC_BUILD) --package ca-overlap --bin ca-overlap -- $(STATIC_LINK)
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

# The image name in overlays/kind.
IMAGE ?= ca-overlap:dev
# The programs to pack, by platform, instead of the one that `make static` builds:
#   make image-tar IMAGE_PROGRAMS='amd64=FILE arm64=FILE'
IMAGE_PROGRAMS ?=
IMAGE_DIR := $(TARGET)/image
IMAGE_TAR ?= $(IMAGE_DIR)/ca-overlap.tar
PACK := $(abspath $(IMAGE_DIR))/pack
PACK_PROGRAM = PACK='$(PACK)' IMAGE='$(IMAGE)' IMAGE_DIR='$(IMAGE_DIR)' IMAGE_TAR='$(IMAGE_TAR)' \
	VERSION='$(VERSION)' REPOSITORY='$(REPOSITORY)' IMAGE_PROGRAMS='$(or $(IMAGE_PROGRAMS),$(HOST_ARCH)=$(STATIC))' build/image.sh

.PHONY: image
image: $(if $(IMAGE_PROGRAMS),,static) ## Build the image with Docker (BuildKit): ca-overlap:dev
	$(PACK_PROGRAM) docker

.PHONY: image-tar
image-tar: $(if $(IMAGE_PROGRAMS),,static) packer ## Build the image without a container engine: target/image/ca-overlap.tar
	$(PACK_PROGRAM) tar

# A program that packs any files into an image: target/image/pack -help.
.PHONY: packer
packer: need-go
	@mkdir -p $(IMAGE_DIR)
	go -C build/image build -trimpath -o "$(PACK)" .
