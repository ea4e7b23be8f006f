# Packs programs as images for nodes that cannot pull. Sourced by images.sh and earlier.sh.
#
# Environment:
#   PACK    the program of build/image
#   ARCH    the platform, such as amd64
#   IMAGES  the directory for the archives

# Arguments: ARCHIVE NAME ENTRYPOINT SOURCE=/DESTINATION…
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

# Prints the shared libraries and the loader of a program, each at its own path. A static program
# has none.
libraries() {
    ldd "$1" 2>/dev/null | sed -n -E 's,^(.*=> |[[:space:]]*)(/[^ ]+) \(0x.*,\2=\2,p'
}
