##@ To check (docs/testing.md)

.PHONY: test
test: control-plane helm ## Run all tests; the first run builds the control plane
	cargo test --locked --workspace --no-fail-fast

.PHONY: test-static
test-static: static control-plane ## Run the tests of the static program; needs root for the tests in an empty root
	cargo build --locked --workspace --examples
	CA_OVERLAP_TEST_PROGRAM=$(STATIC) cargo test --locked --workspace --no-fail-fast \
		--test shipped -- --include-ignored
	CA_OVERLAP_TEST_PROGRAM=$(STATIC) cargo test --locked --workspace --no-fail-fast --test it -- demo:: serving_cert::
	CA_OVERLAP_TEST_PROGRAM=$(STATIC) cargo test --locked --workspace --no-fail-fast --test pure review::

.PHONY: lint
lint: need-rust ## Check formatting and lints; warnings are errors
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

PROSE := README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md Makefile .ci .github benches build docs make manifests src tests

.PHONY: prose
prose: $(VALE) ## Check spelling, and the wordings of .vale, in pages, comments and messages (10 seconds)
	$(VALE) $(PROSE)
	$(VALE) --config=.vale/text.ini $(PROSE)
	@for config in .vale.ini:.vale/control.md .vale/text.ini:.vale/control.txt; do \
		control=$${config#*:}; \
		faults=$$($(VALE) --config="$${config%%:*}" --output=line "$$control" | cut -d : -f 2 | sort -u | wc -l); \
		if [ "$$faults" -ne "$$(sed 1d "$$control" | wc -l)" ]; then \
			echo "$$control: a fault was not reported" >&2; exit 1; fi; \
	done

# A time limit for downloads, if the machine has the command.
TIMEOUT := $(shell command -v timeout >/dev/null 2>&1 && echo timeout 120)

.PHONY: deny
deny: $(CARGO_DENY) ## Check licences, sources, banned and duplicate crates, and advisories if reachable
	$(CARGO_DENY) --locked check bans licenses sources
	@if $(TIMEOUT) $(CARGO_DENY) --locked fetch db; then \
		$(CARGO_DENY) --locked check advisories; \
	else \
		echo "advisories NOT CHECKED: the RustSec database is not reachable" >&2; \
	fi

.PHONY: package-test
package-test: need-go kind-check workflow-lint ## Check packaging and release: image writer, kind's configuration, workflows
	go -C build/image vet ./...
	go -C build/image test -count=1 ./...

.PHONY: workflow-lint
workflow-lint: $(ACTIONLINT) ## Lint the GitHub workflows, which may run only make targets
	$(ACTIONLINT) -color
	@if grep -n 'run:' .github/workflows/* | grep -v 'run: make '; then \
		echo "the lines above do not run a make target: move the commands into the Makefile" >&2; exit 1; fi
	@if grep -n 'uses:' .github/workflows/* | grep -v -E '@[0-9a-f]{40} # v[0-9]'; then \
		echo "the actions above are not pinned: use OWNER/ACTION@COMMIT # vVERSION" >&2; exit 1; fi

.PHONY: ci
ci: ## Run everything that a change must pass: .ci/run
	.ci/run

# The tests in an empty root, and nodes where no Docker engine answers, need root.
.PHONY: ci-as-root
ci-as-root:
	if [ "$$(id -u)" = 0 ]; then .ci/run; else sudo env PATH="$$PATH" HOME="$$HOME" .ci/run; fi

##@ To check for longer

# The program to test, such as: make fault-test FAULT_PRODUCT=target/static/ca-overlap
FAULT_PRODUCT := $(TARGET)/debug/ca-overlap
FAULT_PROGRAMS = -product $(FAULT_PRODUCT) -clock-product $(TARGET)/debug/ca-overlap \
	-faulty $(TARGET)/debug/examples/faulty-webhook

.PHONY: rig
rig: need-go
	go -C tests/fault/rig build -o "$(abspath $(TARGET))/fault-rig" .

.PHONY: fault-rig
fault-rig: need-rust rig
	cargo build --locked --workspace --bin ca-overlap --example faulty-webhook

.PHONY: fault-test
fault-test: fault-rig ## Inject faults of production under load: no call may fail (3 minutes)
	$(TARGET)/fault-rig $(FAULT_PROGRAMS) -dir $(TARGET)/fault

.PHONY: fault-test-full
fault-test-full: fault-rig ## Run fault-test with the totals of docs/reliability.md (20 minutes)
	$(TARGET)/fault-rig $(FAULT_PROGRAMS) -dir $(TARGET)/fault-full -full

# The program to attack. The bars count for the shipped one.
ATTACK_PRODUCT := $(STATIC)
ATTACKED = rig $(if $(filter $(STATIC),$(ATTACK_PRODUCT)),static)

.PHONY: attack-test
attack-test: $(ATTACKED) ## Attack the webhook within its memory limit, beside a victim; needs root (3 minutes)
	$(TARGET)/fault-rig attack -product $(ATTACK_PRODUCT) -dir $(TARGET)/attack

.PHONY: attack-test-full
attack-test-full: $(ATTACKED) control-plane ## Attack webhook and keeper for longer; needs root (20 minutes)
	cargo build --locked --package devtools --example attacked-cluster
	$(TARGET)/fault-rig attack -product $(ATTACK_PRODUCT) -dir $(TARGET)/attack-full -full \
		-cluster $(TARGET)/debug/examples/attacked-cluster

.PHONY: rollout-test-full
rollout-test-full: control-plane ## Run 20 rollouts and 20 CA rotations under constant writes to a real API server (3 minutes)
	CI=true CA_OVERLAP_ROLLOUTS=20 cargo test --locked --test it serving_cert::rollouts -- --nocapture

.PHONY: quiet-full
quiet-full: control-plane ## Repeat the same writes every second for ten minutes: nothing may change
	CI=true CA_OVERLAP_QUIET=600 cargo test --locked --test it keeper::steady_state -- --nocapture

# The commit that `upgrade-test` upgrades from, and rolls back to: the first edition.
UPGRADE_FROM ?= e4ab9d0

.PHONY: upgrade-test
upgrade-test: control-plane ## Upgrade from the first edition and back, with both programs (2 minutes; the first run builds it)
	COMMIT='$(UPGRADE_FROM)' OUT=$(TARGET)/earlier sh tests/cluster/earlier.sh
	CI=true CA_OVERLAP_EARLIER=$(abspath $(TARGET))/earlier \
		cargo test --locked --test it upgrade:: -- --ignored --nocapture

.PHONY: mutants
mutants: $(CARGO_MUTANTS) ## Change each rule of decision and admission in turn: a test must fail (half an hour)
	PATH="$(abspath $(dir $(CARGO_MUTANTS))):$$PATH" tests/mutation/run.sh $(MUTANTS)

.PHONY: values-table
values-table: need-rust ## Write the table of values in the chart's README from its values.yaml
	CA_OVERLAP_RECORD=1 cargo test --locked --test pure manifests::values

.PHONY: helm3-test
helm3-test: $(HELM3) control-plane ## Run the tests of the chart with Helm 3; `make test` has Helm 4
	CA_OVERLAP_TEST_HELM="$(abspath $(HELM3))" CI=true cargo test --locked --test pure manifests::chart
	CA_OVERLAP_TEST_HELM="$(abspath $(HELM3))" CI=true cargo test --locked --test it chart::

.PHONY: corpus
corpus: control-plane ## Record the reviews of a real API server in tests/data/reviews
	CA_OVERLAP_RECORD=1 cargo test --locked --test it api_server::corpus

# A real kind cluster of three nodes: see docs/testing.md. It reports missing rights and packages. To
# run one test: make kind-test KIND_TESTS=handshakes
NODE := $(TARGET)/node
KIND_RUN = KIND="$(abspath $(KIND))" KIND_VERSION=$(patsubst kind-%,%,$(notdir $(patsubst %/,%,$(dir $(KIND))))) \
	KUBECTL="$(abspath $(TARGET))/control-plane/bin/kubectl" IMAGES="$(abspath $(NODE))/images" \
	WORK="$(abspath $(TARGET))/kind" KIND_TESTS='$(KIND_TESTS)'

.PHONY: kind-test
kind-test: kind-ready ## Run the suite on a kind cluster of three nodes, with or without Docker (KIND_VERSIONS='1.33')
	$(KIND_RUN) tests/kind/run.sh $(KIND_VERSIONS)

kind-test-cert-manager kind-test-full: CERT_MANAGER := $(TARGET)/control-plane/cert-manager/cert-manager

.PHONY: kind-test-cert-manager
kind-test-cert-manager: KIND_TESTS := long::cert_manager
kind-test-cert-manager: kind-test ## Renew a root of cert-manager under handshakes of pods, on a kind cluster

.PHONY: kind-test-full
kind-test-full: kind-ready node-earlier ## Run kind-test on all its versions, with an upgrade from an earlier build
	$(KIND_RUN) tests/kind/run.sh all

.PHONY: kind-ready
kind-ready: $(KIND) control-plane helm node-images
	DIRECTORY="$(abspath $(TARGET))/kind-engine" PROGRAM="$(abspath $(NODE))/tools/peer" tests/kind/engine-test.sh
	go -C tests/cluster vet ./...
	cargo test --locked --workspace --test cluster --no-run

.PHONY: kind-node-image
kind-node-image: need-go ## Build a node image for kind from Debian's packages and Go modules (KUBERNETES='1.33.13')
	$(KIND_RUN) tests/kind/node/build.sh $(or $(KUBERNETES),$(shell awk '$$1 == "local" { print $$3; exit }' tests/kind/nodes.txt))

.PHONY: kind-check
kind-check: $(KIND) ## Check the configuration of kind-test without Docker
	$(KIND_RUN) tests/kind/run.sh --check

# Images for a node that cannot pull: the product, and the programs of the suite.
.PHONY: node-images
node-images: static node-tools packer
	cargo build --locked --workspace --example legacy-certgen
	PACK='$(PACK)' ARCH='$(HOST_ARCH)' IMAGES=$(NODE)/images PRODUCT=$(STATIC) \
		PEER=$(NODE)/tools/peer CERTGEN=$(TARGET)/debug/examples/legacy-certgen CERT_MANAGER='$(CERT_MANAGER)' sh tests/cluster/images.sh

.PHONY: node-tools
node-tools: need-rust need-go
	@mkdir -p $(NODE)/tools
	CGO_ENABLED=0 go -C tests/cluster build -trimpath -ldflags='-s -w' -o "$(abspath $(NODE))/tools/" ./...

# The commit that `kind-test-full` upgrades from: the last tag, or the previous commit that changed
# the program.
EARLIER ?= $(shell git describe --tags --abbrev=0 HEAD^ 2>/dev/null || \
	git log --first-parent --skip=1 -n 1 --format=%H -- src Cargo.lock)

.PHONY: node-earlier
node-earlier: need-rust packer
	PACK='$(PACK)' ARCH='$(HOST_ARCH)' IMAGES=$(NODE)/images COMMIT='$(EARLIER)' OUT=$(NODE)/earlier \
		sh tests/cluster/earlier.sh

.PHONY: control-plane
control-plane: need-rust ## Find or build etcd, kube-apiserver, kube-controller-manager, kubectl and cert-manager for tests
	@sh tests/control-plane/build.sh

.PHONY: helm
helm: $(HELM) ## Find or build helm, for the tests of the chart
