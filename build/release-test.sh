#!/bin/sh
# Runs the steps of release.sh that need no network, with a stand-in for the program and for the owner
# of make/owner.mk, and checks what they make. Run by `make release-test`.
#
# Environment: VERSION, HELM, KUBECTL, LICENCES (of `make licences`)
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DIST="$work/dist" PLATFORMS="linux_amd64 linux_arm64 darwin_amd64 darwin_arm64" PROGRAM="$work/program" \
    MAN="$work/man" COMPLETIONS="$work/completions"
image=registry.test/us/ca-overlap:$VERSION

main() {
    mkdir "$MAN" "$COMPLETIONS"
    echo program >"$PROGRAM"
    echo page >"$MAN/ca-overlap.1"
    echo words >"$COMPLETIONS/ca-overlap.bash"

    # Without an owner nothing that names a place is made.
    for step in check chart manifest krew push; do
        said=$(REGISTRY='' REPOSITORY='' build/release.sh $step 2>&1) && fail "$step needs no owner"
        case $said in *make/owner.mk*) ;; *) fail "$step does not name make/owner.mk: $said" ;; esac
    done
    export REGISTRY=registry.test/us REPOSITORY=https://git.test/us/ca-overlap

    for PLATFORM in $PLATFORMS; do
        PLATFORM=$PLATFORM build/release.sh archive
    done
    archive=$DIST/ca-overlap_${VERSION}_linux_amd64.tar.gz
    for file in ca-overlap LICENSE LICENCES.txt README.md CHANGELOG.md man/ca-overlap.1 completions/ca-overlap.bash; do
        tar -tzf "$archive" | grep -qx "$file" || fail "the archive has no $file"
    done
    first=$(sha256sum <"$archive")
    touch "$PROGRAM"
    PLATFORM=linux_amd64 build/release.sh archive
    [ "$first" = "$(sha256sum <"$archive")" ] || fail "the same files give another archive"
    build/release.sh unpack
    cmp "$PROGRAM" "$DIST/.programs/arm64/ca-overlap"
    [ ! -e "$DIST/.programs/darwin_arm64" ] || fail "a program for macOS is unpacked for the image"

    build/release.sh chart
    chart=$DIST/ca-overlap-$VERSION.tgz
    [ "$("$HELM" template x "$chart" --namespace y --set keeper.enabled=true | grep -c "image: $image\$")" = 3 ] ||
        fail "the chart does not name the image in webhook, keeper and test"
    "$HELM" show chart "$chart" | grep -q "^home: $REPOSITORY\$" || fail "the chart has no home"
    "$HELM" show readme "$chart" | grep -q "($REPOSITORY/blob/v$VERSION/docs/install.md" || fail "no link in the README"
    "$HELM" template x "$chart" --set prometheus.enabled=true |
        grep -q "runbook_url: $REPOSITORY/blob/v$VERSION/docs/alerts.md#" || fail "no link in the alerts"
    if "$HELM" template x manifests/chart >/dev/null 2>&1; then
        fail "the chart of a clone names an image"
    fi

    build/release.sh manifest
    grep -q ca-overlap:dev "$DIST/install.yaml" && fail "install.yaml names the image of a clone"
    build/release.sh krew
    build/release.sh checksums
    (cd "$DIST" && sha256sum --check --quiet checksums.txt)
    [ "$(wc -l <"$DIST/checksums.txt")" = 7 ] || fail "not all files are in checksums.txt"
    echo "release-test: fine"
}

fail() {
    echo "release-test: $*" >&2
    exit 1
}

main
