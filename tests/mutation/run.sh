#!/bin/sh
# Changes the decision and the admission endpoint in one small place at a time, and runs their
# tests each time. A change that fails no test shows a rule that is not tested. Run by
# `make mutants`; reads the list of survivors in docs/mutation-testing.md.
#
#   run.sh [option of cargo-mutants…]      such as -f src/x509/pem.rs
#
# The bar of caught mutants applies to whole runs only.
#
# The modules and their tests are assembled as a crate below target/mutation, because building and
# testing the whole program for each change would take ten times as long.
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
    assemble
    mutate "$@"
    judge
}

assemble() {
    rm -rf "$tree"
    mkdir -p "$tree/src" "$tree/tests" "$tree/benches"
    (cd "$root/src" && cp -R overlap admission x509 metrics.rs names.rs "$tree/src")
    (cd "$root/tests" && cp -R pure support data devtools "$tree/tests")
    cp "$root"/benches/*.rs "$tree/benches"
    cp "$root/Cargo.lock" "$tree"
    cat "$here/lib.rs" >"$tree/src/lib.rs"
    # The same dependencies and profiles, so that no dependency is built twice; no targets.
    awk '/^\[/ { skip = /^\[\[/ || /^\[(lib|workspace)\]/ } !skip' "$root/Cargo.toml" >"$tree/Cargo.toml"
    printf '\n[lib]\nname = "ca_overlap"\ndoctest = false\n\n[workspace]\n' >>"$tree/Cargo.toml"
    # Removes unused packages from the lock file, and keeps the versions of the others.
    cargo update --quiet --workspace --offline --manifest-path "$tree/Cargo.toml"
}

# Few random histories from a fixed seed, and no shrinking: one failure is enough. A change may
# cause an endless loop, so time and memory are limited.
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
    # A line of the list explains one survivor, because two changes may have the same name.
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

# Removes line and column, which change.
survivors() {
    sed 's/^\([^:]*\):[0-9]*:[0-9]*: /\1: /' "$1" | sort
}

main "$@"
