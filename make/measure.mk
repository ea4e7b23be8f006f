##@ To measure (docs/performance.md)

BENCH = cargo run --locked --package benches --bin bench -- run --program $(STATIC) \
	--allow-all $(STATIC_DIR)/allow_all --peers $(TARGET)/bench/bin --out $(TARGET)/bench

.PHONY: measure
measure: static ## Measure the shipped program: CPU per admission, memory, start, size (1 minute)
	$(BENCH) --mode measure

.PHONY: bench-quick
bench-quick: bench-programs ## Compare it with other webhooks in the main scenarios (2 minutes)
	$(BENCH) --mode quick

.PHONY: bench
bench: bench-programs ## Compare it with other webhooks in all scenarios (25 minutes; needs an idle machine)
	$(BENCH) --mode full

.PHONY: bench-instructions
bench-instructions: bench-programs ## Count instructions per request with valgrind, also of an allow-all server
	$(BENCH) --mode instructions

.PHONY: bench-programs
bench-programs: static need-go
	RUSTFLAGS="$(STATIC_FLAGS)" cargo rustc $(STATIC_BUILD) --package benches --bin allow_all -- $(STATIC_LINK)
	mkdir -p $(TARGET)/bench/bin
	go -C benches/peer build -trimpath -ldflags='-s -w' -o "$(abspath $(TARGET))/bench/bin/" ./...

.PHONY: write-latency
write-latency: bench-programs control-plane ## Compare writes through an API server: no webhook, ours, others, a policy (2 minutes)
	CI=true CA_OVERLAP_TEST_PROGRAM=$(STATIC) CA_OVERLAP_WRITES=$(or $(WRITES),400) \
		CA_OVERLAP_ALLOW_ALL=$(abspath $(STATIC_DIR))/allow_all CA_OVERLAP_GO_PEER=$(abspath $(TARGET))/bench/bin/stdlib \
		cargo test --locked --test it write_latency -- --ignored --nocapture

.PHONY: bench-profile
bench-profile: need-rust need-valgrind ## Profile the instructions of whole requests, also of an allow-all server
	RUSTFLAGS="$(STATIC_FLAGS)" cargo rustc $(STATIC_BUILD) --package ca-overlap --bin ca-overlap -- $(STATIC_LINK) -C strip=none
	mkdir -p $(TARGET)/bench/symbols && cp $(STATIC_DIR)/ca-overlap $(TARGET)/bench/symbols/
	RUSTFLAGS="$(STATIC_FLAGS)" cargo rustc $(STATIC_BUILD) --package benches --bin allow_all -- $(STATIC_LINK) -C strip=none
	cargo run --locked --package benches --bin bench -- run --mode profile --program $(TARGET)/bench/symbols/ca-overlap \
		--allow-all $(STATIC_DIR)/allow_all

.PHONY: bench-publish
bench-publish: need-rust ## Write the last results of make bench into docs/
	cargo run --locked --package benches --bin bench -- publish $(TARGET)/bench/full.json

.PHONY: instructions
instructions: counted ## Count instructions and allocations per admission, and compare with the accepted counts (2 minutes)
	cargo run --quiet --locked --package benches --bin instructions -- compare $(STATIC_DIR)

.PHONY: instructions-accept
instructions-accept: counted ## Accept the current counts: writes benches/instructions.json
	cargo run --quiet --locked --package benches --bin instructions -- accept $(STATIC_DIR)

.PHONY: linear
linear: counted ## Check that twice the size of a hostile body costs twice the instructions (2 minutes)
	cargo run --quiet --locked --package benches --bin instructions -- linear $(STATIC_DIR)

REVIEW ?= tests/data/reviews/put.json

.PHONY: profile
profile: counted ## Profile the instructions of a review: make profile REVIEW=tests/data/reviews/put.json
	valgrind -q --tool=callgrind --callgrind-out-file=$(TARGET)/profile.callgrind \
		$(STATIC_DIR)/hot-path answer $(REVIEW) 1000
	callgrind_annotate --inclusive=yes $(TARGET)/profile.callgrind

# The hot path, built like the shipped program, with symbols for profiles.
.PHONY: counted
counted: need-rust need-valgrind
	RUSTFLAGS="$(STATIC_FLAGS)" cargo rustc $(STATIC_BUILD) --package benches --bin hot-path -- $(STATIC_LINK) -C strip=none
	RUSTFLAGS="$(STATIC_FLAGS)" cargo rustc $(STATIC_BUILD) --package benches --bin allocations -- $(STATIC_LINK)

KEEPER = CI=true CA_OVERLAP_TEST_PROGRAM=$(STATIC)

.PHONY: keeper-scale
keeper-scale: static control-plane ## Check time and memory of the shipped keeper with 10,000 Secrets, and print its CPU (3 minutes)
	$(KEEPER) CA_OVERLAP_SECRETS=10000 CA_OVERLAP_IDLE=60 cargo test --locked --test it keeper::scale -- --nocapture

.PHONY: keeper-large
keeper-large: static control-plane ## Check time and memory of the shipped keeper with 300 Secrets of 1 MB beside a rotation
	$(KEEPER) CA_OVERLAP_LARGE=100 cargo test --locked --test it large_secrets -- --nocapture

.PHONY: keeper-followers
keeper-followers: static control-plane ## Check time and memory of the shipped keeper that announces a CA to 10,000 Secrets
	$(KEEPER) CA_OVERLAP_FOLLOWERS=10000 cargo test --locked --test it many_followers -- --nocapture

.PHONY: simulate-seeds
simulate-seeds: need-rust ## Check the promises of simulate for 200 seeds (5 minutes)
	CA_OVERLAP_SEEDS=200 cargo test --locked --test pure simulate::promises

.PHONY: figures
figures: need-rust ## Regenerate docs/figures and the output in docs/modes.md with simulate
	cargo run --locked -- simulate --svg docs/figures/simulate.svg
	cargo run --locked -- simulate --settle 30s --svg docs/figures/simulate-settle-30s.svg || [ $$? -eq 1 ]
	CA_OVERLAP_RECORD=1 cargo test --locked --test pure simulate::figures

.PHONY: metrics-page
metrics-page: need-rust ## Regenerate the tables in docs/metrics.md
	CA_OVERLAP_RECORD=1 cargo test --locked --lib metrics_page
