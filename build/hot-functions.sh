#!/bin/sh
# Writes build/hot-functions.txt: which functions run in a webhook, as valgrind saw them in the tests that
# rotate its own CA under load, replace mounted files, and send reviews of every size.
#
#   hot-functions.sh PROGRAM     with symbols; run by `make hot-functions`
set -eu
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
program=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Tests end a program as it pleases them: what it has run so far is written down again and again.
cat >"$work/ca-overlap" <<EOF
#!/bin/sh
exec valgrind --quiet --log-file=/dev/null --tool=callgrind --callgrind-out-file=$work/calls.%p \\
    --compress-strings=no --demangle=no --dump-every-bb=30000000 $program "\$@"
EOF
chmod +x "$work/ca-overlap"

test_with() {
    CI=true CA_OVERLAP_TEST_PROGRAM=$work/ca-overlap cargo test --locked "$@"
}
test_with --test rotation -- load:: files::
test_with --test program -- reviews_of_every_size

cat "$work"/calls.* | sed -n -E "s/^fn=([^('0].*)/\1/p" | sed -E "s/'[0-9]+\$//" | sort -u |
    sh "$here/functions.sh" | sort -u >"$work/names"
[ "$(wc -l <"$work/names")" -gt 1000 ] || { echo "valgrind saw next to nothing" >&2; exit 1; }
cp "$work/names" "$here/hot-functions.txt"
echo "build/hot-functions.txt: $(wc -l <"$work/names") functions"
