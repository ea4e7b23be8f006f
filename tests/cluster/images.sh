#!/bin/sh
# Packs the images of the suite as archives that containerd and kind load, because the node cannot
# pull. Run by `make node-images`.
#
# Environment, in addition to that of pack.sh:
#   PRODUCT    the static ca-overlap
#   PEER       the program of tests/cluster/peer
#   CERTGEN    the example legacy-certgen, which may be linked dynamically
#   CERT_MANAGER   the program of tests/cert-manager; empty: without it
set -eu
. "$(dirname "$0")/pack.sh"

mkdir -p "$IMAGES"
pack ca-overlap ca-overlap:dev /ca-overlap "$PRODUCT=/ca-overlap"
pack peer ca-overlap-test-peer:dev /peer "$PEER=/peer"
# shellcheck disable=SC2046 # words on purpose
pack certgen ca-overlap-test-certgen:dev /legacy-certgen "$CERTGEN=/legacy-certgen" $(libraries "$CERTGEN")
# It is large, and only one test needs it.
rm -f "$IMAGES/cert-manager.tar"
[ -z "${CERT_MANAGER:-}" ] || pack cert-manager ca-overlap-test-cert-manager:dev /cert-manager "$CERT_MANAGER=/cert-manager"
