#!/bin/sh
# Packs what the suite runs in pods, as archives that containerd and kind load: nothing can be pulled.
# Run by `make node-images`.
#
# By environment:
#   OCI_IMAGE  the program that packs (build/oci-image)
#   IMAGES     where the archives go
#   PRODUCT    the static ca-overlap
#   VERSION    its version, which is the tag in the manifests
#   PEER       the program of tests/cluster/peer
#   CERTGEN    the example legacy-certgen; may be linked dynamically
set -eu

main() {
    mkdir -p "$IMAGES"
    # Under the name of overlays/kind, and under that of the other manifests.
    pack ca-overlap ca-overlap:dev -file "$PRODUCT=/ca-overlap"
    pack ca-overlap-release "ghcr.io/ca-overlap/ca-overlap:$VERSION" -file "$PRODUCT=/ca-overlap"
    pack pause localhost/ca-overlap-pause:test -file "$PEER=/peer" -entrypoint /peer -entrypoint pause
    pack peer ca-overlap-test-peer:dev -file "$PEER=/peer"
    # shellcheck disable=SC2046 # words on purpose
    pack certgen ca-overlap-test-certgen:dev -file "$CERTGEN=/legacy-certgen" $(libraries "$CERTGEN")
}

# ARCHIVE NAME FLAGS…
pack() {
    archive=$IMAGES/$1.tar
    name=$2
    shift 2
    "$OCI_IMAGE" -o "$archive" -name "$name" "$@" >/dev/null
}

# The shared libraries of a program, the loader too, at their own paths. A static one has none.
libraries() {
    ldd "$1" 2>/dev/null | sed -n -E 's,^(.*=> |[[:space:]]*)(/[^ ]+) \(0x.*,-file \2=\2,p'
}

main
