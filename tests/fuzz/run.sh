#!/bin/sh
# Builds the fuzz targets and runs each for a while: run.sh SECONDS [TARGET...]
#
# New inputs stay below $CARGO_TARGET_DIR/fuzz/found, where the next run continues. Fails on a
# crash, a hang (10 s for one input), more than 2 GiB of memory, a failed oracle, and a target that
# executed nothing.
set -eu
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
cargo_fuzz=${CARGO_FUZZ:-cargo-fuzz}
all="review secrets pem record settings certificate"

# A fixed seed makes a short run repeatable on the same kind of machine. 0 means a random seed.
seed=${CA_OVERLAP_FUZZ_SEED:-0}

seconds=$1
shift
targets=${*:-$all}

# The library forbids unsafe code, so a sanitizer would find nothing, and without one twice as many
# inputs run. CA_OVERLAP_SANITIZER=address builds with it.
sanitizer=${CA_OVERLAP_SANITIZER:-none}
built=$target/fuzz/$sanitizer
found=$target/fuzz/found
crashes=$target/fuzz/crashes
logs=$target/fuzz/logs
mkdir -p "$found" "$crashes" "$logs"

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "nightly Rust is missing: fuzzing needs it (rustup toolchain install nightly)" >&2
    exit 1
fi
# cargo-fuzz has no --locked.
cargo +nightly metadata --locked --format-version 1 --manifest-path tests/fuzz/Cargo.toml >/dev/null || {
    echo "tests/fuzz/Cargo.lock does not fit: run cargo metadata --manifest-path tests/fuzz/Cargo.toml" >&2
    exit 1
}
echo "building the fuzz targets, sanitizer $sanitizer (10 minutes the first time)" >&2
RUSTUP_TOOLCHAIN=nightly "$cargo_fuzz" build --fuzz-dir tests/fuzz --sanitizer "$sanitizer" --target-dir "$built"
programs=$built/$(rustc +nightly -vV | sed -n 's/^host: //p')/release

run=
trap 'test -z "$run" || kill "$run" 2>/dev/null || true' EXIT
trap 'exit 1' INT TERM

failed=
for name in $targets; do
    log=$logs/$name
    mkdir -p "$found/$name"
    seeds=tests/fuzz/corpus/$name
    max_len=4096
    if [ "$name" = review ]; then
        seeds="$seeds tests/data/reviews"
        max_len=65536
    fi
    printf '%-12s for %s s\n' "$name" "$seconds"
    # shellcheck disable=SC2086 # the seeds are a list of directories
    RUST_BACKTRACE=0 "$programs/$name" -max_total_time="$seconds" -seed="$seed" -max_len="$max_len" -timeout=10 \
        -rss_limit_mb=2048 -dict=tests/fuzz/dictionary.txt -print_final_stats=1 \
        -artifact_prefix="$crashes/$name-" "$found/$name" $seeds >"$log" 2>&1 &
    run=$!
    seen=0
    while kill -0 "$run" 2>/dev/null; do
        sleep 1
        seen=$((seen + 1))
        # One line a minute shows that a long run is alive.
        [ $((seen % 60)) != 0 ] || grep -a '^#' "$log" | tail -n 1 | cut -c 1-100
    done
    if ! wait "$run"; then
        failed="$failed $name"
        grep -a -A 1 'panicked at' "$log" | cut -c 1-2000 >&2 || true
        grep -a -E '^SUMMARY|Test unit written' "$log" >&2 || true
    fi
    run=
done

printf '\n%-12s %12s %10s %10s\n' target executions coverage features
for name in $targets; do
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$logs/$name")
    # The last status line: cov counts edges, ft features (edges by how often they are taken).
    coverage=$(grep -a -o 'cov: [0-9]*' "$logs/$name" | tail -n 1 | cut -c 6-)
    features=$(grep -a -o 'ft: [0-9]*' "$logs/$name" | tail -n 1 | cut -c 5-)
    printf '%-12s %12s %10s %10s\n' "$name" "${executed:-0}" "${coverage:--}" "${features:--}"
    if [ "${executed:-0}" -lt 100 ]; then
        failed="$failed $name"
        echo "$name executed nothing: see $logs/$name" >&2
    fi
done
if [ -n "$failed" ]; then
    echo "FAILED:$failed; the inputs are in $crashes" >&2
    exit 1
fi
