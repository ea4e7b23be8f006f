# Packs programs for nodes that can pull nothing. Read by images.sh and earlier.sh.
#
# By environment:
#   PACK    the program of build/image
#   ARCH    for which platform, such as amd64
#   IMAGES  where the archives go

# ARCHIVE NAME ENTRYPOINT SOURCE=/DESTINATION…
pack() {
    archive=$IMAGES/$1.tar
    name=$2
    entrypoint=$3
    shift 3
    root=$(mktemp -d)
    for file in "$@"; do
        mkdir -p "$root$(dirname "${file#*=}")"
        cp "${file%%=*}" "$root${file#*=}"
    done
    "$PACK" -o "$archive" -name "$name" -entrypoint "$entrypoint" "linux/$ARCH=$root"
    rm -rf "$root"
}

# The shared libraries of a program, the loader too, at their own paths. A static one has none.
libraries() {
    ldd "$1" 2>/dev/null | sed -n -E 's,^(.*=> |[[:space:]]*)(/[^ ]+) \(0x.*,\2=\2,p'
}
