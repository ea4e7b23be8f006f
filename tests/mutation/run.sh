#!/bin/sh
# Changes the decision and the admission endpoint in one small place at a time, and runs their
# tests each time: a change that no test notices is a rule that no test guards. Run by
# `make mutants`; see docs/mutation-testing.md, whose list of survivors it reads.
#
#   run.sh [option of cargo-mutants…]      such as -f src/x509/pem.rs
#
# The bar of caught mutants is for whole runs only.
#
# The modules and their tests are put together as a crate of their own, below target/mutation: to
# build and run all of the program for each change would take ten times as long.
set -eu

BAR=95
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$target/mutation
tree=$work/tree
explained=$root/docs/mutation-testing.md

main() {
    mkdir -p "$work"
    bar=0
    [ $# -gt 0 ] || { bar=$BAR && set -- -f 'src/x509/**' -f 'src/overlap/**' -f 'src/admission/**'; }
    put_together
    mutate "$@"
    judge
}

put_together() {
    rm -rf "$tree"
    mkdir -p "$tree/src" "$tree/tests" "$tree/benches"
    (cd "$root/src" && cp -R overlap admission x509 metrics.rs names.rs "$tree/src")
    (cd "$root/tests" && cp -R pure support data devtools "$tree/tests")
    cp "$root"/benches/*.rs "$tree/benches"
    cp "$root/Cargo.lock" "$tree"
    cat "$here/lib.rs" >"$tree/src/lib.rs"
    # The same dependencies and profiles, so that nothing of them is built twice; no targets.
    awk '/^\[/ { skip = /^\[\[/ || /^\[(lib|workspace)\]/ } !skip' "$root/Cargo.toml" >"$tree/Cargo.toml"
    printf '\n[lib]\nname = "ca_overlap"\ndoctest = false\n\n[workspace]\n' >>"$tree/Cargo.toml"
    # The lock file holds more than is left; what is left stays as it is.
    cargo update --quiet --workspace --offline --manifest-path "$tree/Cargo.toml"
}

# Few random histories, the same each time, and no search for a smaller one: one that fails is
# enough. A change may make a loop without an end, so time and memory are bounded.
mutate() {
    (
        ulimit -v 8388608
        export CARGO_TARGET_DIR="$target" CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=0
        export PROPTEST_CASES=100 PROPTEST_RNG_SEED=1 PROPTEST_MAX_SHRINK_ITERS=0 RUST_BACKTRACE=0
        cargo mutants --dir "$tree" --in-place --config "$here/mutants.toml" --output "$work" "$@"
    ) || [ $? -eq 2 ] || [ $? -eq 3 ] || exit 1
}

judge() {
    out=$work/mutants.out
    caught=$(lines caught) missed=$(lines missed) timeout=$(lines timeout) unviable=$(lines unviable)
    viable=$((caught + missed + timeout))
    [ "$viable" -gt 0 ] || { echo "no mutant was tested" >&2; exit 1; }
    tenths=$(((caught + timeout) * 1000 / viable))
    survivors "$out/missed.txt" >"$work/survivors"
    sed -n 's/\\|/|/g; s/^| `\(src\/[^`]*\)`.*/\1/p' "$explained" | sort >"$work/explained"
    # As often as they are listed: two changes may have one name.
    comm -23 "$work/survivors" "$work/explained" >"$work/unexplained"

    printf '\n%s mutants: %s unviable, %s viable; of these %s caught, %s by timeout, %s missed: ' \
        "$((viable + unviable))" "$unviable" "$viable" "$caught" "$timeout" "$missed"
    printf '%s.%s %% caught\n' "$((tenths / 10))" "$((tenths % 10))"
    status=0
    if [ "$tenths" -lt $((bar * 10)) ]; then
        echo "FAILED: fewer than $BAR % were caught" >&2
        status=1
    fi
    if [ -s "$work/unexplained" ]; then
        echo "FAILED: survivors without an explanation in docs/mutation-testing.md:" >&2
        sed 's/^/  /' "$work/unexplained" >&2
        status=1
    fi
    exit "$status"
}

lines() {
    wc -l <"$out/$1.txt" | tr -d ' '
}

# Without line and column, which move.
survivors() {
    sed 's/^\([^:]*\):[0-9]*:[0-9]*: /\1: /' "$1" | sort
}

main "$@"
