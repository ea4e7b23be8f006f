#!/bin/sh
# Prints the licences of all packages that are linked into the program, each text once. Run by
# `make licences`.
#
# Environment: TRIPLE, the platform of the program.
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sources=${CARGO_HOME:-$HOME/.cargo}/registry/src

main() {
    cargo fetch --quiet --locked --target "$TRIPLE"
    cargo tree --locked --package ca-overlap --edges normal,no-proc-macro --target "$TRIPLE" --prefix none \
        --format '{p}|{l}' | grep -v '(/' | sed 's/ (\*)$//' | LC_ALL=C sort -u >"$work/packages"
    [ -s "$work/packages" ] || fail "cargo tree lists no package"
    cat <<EOF
ca-overlap is licensed under the Apache License 2.0 (LICENSE). The program contains the packages below,
each under its own licence. Their texts follow. The Rust standard library in it is licensed under MIT or
Apache 2.0.
EOF
    case $TRIPLE in
        *-linux-gnu) cat <<EOF
It is linked statically with the GNU C Library, which is licensed under the GNU Lesser General Public
License 2.1 or later. \`make static\` links the program again with another version of that library.
EOF
        ;;
    esac
    echo
    while IFS='|' read -r package licence; do
        echo "${package% v*} ${package##* v}: $licence"
        texts "${package% v*}-${package##* v}" "${package% v*} ${package##* v}"
    done <"$work/packages"
    # By the first package that has it.
    for users in $(grep -H -m 1 . "$work"/*.users | LC_ALL=C sort -t : -k 2 | cut -d : -f 1); do
        printf '\n%s\n' ------------------------------------------------------------------------
        sed 's/^/of /' "$users"
        echo
        cat "${users%.users}.text"
    done
}

# Notes the licence files of a package: the name of its directory, and how it is called.
texts() {
    found=
    for directory in "$sources"/*/"$1"; do
        for file in $(find "$directory" -type f | LC_ALL=C sort | grep -i -E '/(un)?(licen[cs]e|copying|copyright|notice)[^/]*$' | grep -v '\.rs$'); do
            sum=$(cksum <"$file" | tr ' ' -)
            tr -d '\r' <"$file" >"$work/$sum.text"
            grep -qx "$2" "$work/$sum.users" 2>/dev/null || echo "$2" >>"$work/$sum.users"
            found=yes
        done
    done
    [ -d "$directory" ] || fail "the source of $1 is not in $sources"
    [ -n "$found" ] || echo "    (without a licence file)"
}

fail() {
    printf 'licences: %s\n' "$*" >&2
    exit 1
}

main
