#!/bin/sh
# The linker of `make static`: lays the functions that a webhook runs side by side. The kernel maps 64 KiB
# around each page that is touched: scattered, they keep most of the program in memory.
# docs/performance.md has the figures.
#
# rustc calls this in place of cc. The functions are in build/hot-functions.txt, which `make
# hot-functions` writes: by name, since symbols have a hash that changes with each compiler and each
# release. One that no longer exists does no harm. Where another linker than LLD is used, or
# binutils are missing, the program is linked as it would be without this.
set -eu
export LC_ALL=C

here=$(dirname "$0")

case " $* " in
*" -fuse-ld=lld "*) ;;
*) exec cc "$@" ;;
esac
command -v nm >/dev/null && command -v c++filt >/dev/null || exec cc "$@"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for argument in "$@"; do
    case $argument in
    *.o | *.a | *.rlib) nm -P --defined-only "$argument" ;;
    esac
done 2>"$work/not-objects" | awk 'tolower($2) ~ /^[tw]$/ { print $1 }' | sort -u >"$work/symbols"
sh "$here/functions.sh" <"$work/symbols" | paste "$work/symbols" - >"$work/functions"
# Names of C are symbols: those of the C library are in no file that is named here.
awk -F '\t' '
    NR == FNR { place[$0] = NR; if ($0 !~ /[^A-Za-z0-9_.]/) print NR "\t" $0; next }
    $2 in place { print place[$2] "\t" $1 }
' "$here/hot-functions.txt" "$work/functions" | sort -u | sort -n | cut -f 2 >"$work/order"
cc "$@" "-Wl,--symbol-ordering-file=$work/order" -Wl,--no-warn-symbol-ordering
