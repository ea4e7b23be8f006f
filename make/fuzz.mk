##@ To fuzz (needs nightly Rust; docs/fuzzing.md)

# Seconds for each of the six targets. 1200 s are 2 hours of one core in all.
FUZZ_SECONDS ?= 1200

.PHONY: fuzz-smoke
fuzz-smoke: need-nightly $(CARGO_FUZZ) ## Fuzz each target for 20 seconds
	CARGO_FUZZ=$(CARGO_FUZZ) CA_OVERLAP_FUZZ_SEED=1 sh tests/fuzz/run.sh 20

.PHONY: fuzz-long
fuzz-long: need-nightly $(CARGO_FUZZ) ## Fuzz each target for FUZZ_SECONDS (1200: 2 hours in all), continuing the last run
	CARGO_FUZZ=$(CARGO_FUZZ) sh tests/fuzz/run.sh $(FUZZ_SECONDS)

.PHONY: fuzz-seeds
fuzz-seeds: need-rust ## Regenerate the certificates of fuzz inputs (tests/fuzz/pool)
	CA_OVERLAP_RECORD=1 cargo test --locked --test pure fuzz::pool
