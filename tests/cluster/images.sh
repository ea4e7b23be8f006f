#!/bin/sh
# Packs what the suite runs in pods, as archives that containerd and kind load: nothing can be pulled.
# Run by `make node-images`.
#
# By environment, besides what pack.sh asks for:
#   PRODUCT    the static ca-overlap
#   VERSION    its version, which is the tag in the manifests
#   PEER       the program of tests/cluster/peer
#   CERTGEN    the example legacy-certgen; may be linked dynamically
set -eu
. "$(dirname "$0")/pack.sh"

mkdir -p "$IMAGES"
# Under the name of overlays/kind, and under that of the other manifests.
pack ca-overlap ca-overlap:dev /ca-overlap "$PRODUCT=/ca-overlap"
pack ca-overlap-release "ghcr.io/ca-overlap/ca-overlap:$VERSION" /ca-overlap "$PRODUCT=/ca-overlap"
pack pause localhost/ca-overlap-pause:test "/peer pause" "$PEER=/peer"
pack peer ca-overlap-test-peer:dev /peer "$PEER=/peer"
# shellcheck disable=SC2046 # words on purpose
pack certgen ca-overlap-test-certgen:dev /legacy-certgen "$CERTGEN=/legacy-certgen" $(libraries "$CERTGEN")
