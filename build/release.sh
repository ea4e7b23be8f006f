#!/bin/sh
# The steps of a release, each run by `make release-…` in the order of docs/release.md.
#
# Environment: VERSION, DIST (the output directory), ARCHES; for some steps HELM, CRANE, COSIGN
# (programs), IMAGE_TAR, REGISTRY, STATIC, ARCH.
set -eu

name=ca-overlap_${VERSION}
krew=$DIST/ca-overlap-krew.yaml

main() {
    mkdir -p "$DIST"
    case $1 in
        check) check ;;
        archive) archive ;;
        unpack) unpack ;;
        chart) chart ;;
        krew) fill_krew ;;
        checksums) checksums ;;
        push) push ;;
        sign) sign ;;
        publish) publish ;;
        *) fail "unknown step $1" ;;
    esac
}

# Checks that the version is the same everywhere and has a section in CHANGELOG.md.
check() {
    tag=$(git describe --tags --exact-match 2>/dev/null) || fail "this commit has no tag"
    [ "$tag" = "v$VERSION" ] || fail "the tag is $tag, and Cargo.toml says $VERSION"
    [ -z "$(git status --porcelain)" ] || fail "the work tree has uncommitted changes"
    notes >/dev/null
    grep -q "^version: $VERSION\$" manifests/chart/Chart.yaml || fail "Chart.yaml does not have version $VERSION"
}

# Prints the section of this version.
notes() {
    text=$(awk -v head="## [$VERSION]" 'index($0, "## [") == 1 { on = index($0, head) == 1; next } on' CHANGELOG.md)
    [ -n "$(echo "$text" | tr -d '[:space:]')" ] || fail "CHANGELOG.md has no section [$VERSION]"
    echo "$text"
}

# Packs the program of one platform. The archive has no times, owners or names, so the same files
# give the same bytes.
archive() {
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    cp "$STATIC" "$root/ca-overlap"
    cp LICENSE README.md "$root"
    chmod 0755 "$root/ca-overlap"
    chmod 0644 "$root/LICENSE" "$root/README.md"
    tar --create --format=ustar --directory "$root" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
        ca-overlap LICENSE README.md | gzip -n -9 >"$DIST/${name}_linux_$ARCH.tar.gz"
    made "${name}_linux_$ARCH.tar.gz"
}

# Unpacks the programs from the archives, for the image.
unpack() {
    for arch in $ARCHES; do
        mkdir -p "$DIST/.programs/$arch"
        tar --extract --gzip --file "$DIST/${name}_linux_$arch.tar.gz" --directory "$DIST/.programs/$arch" ca-overlap ||
            fail "no archive for $arch: run make release-archive first"
    done
}

chart() {
    "$HELM" package manifests/chart --destination "$DIST" >/dev/null
    made "ca-overlap-$VERSION.tgz"
}

fill_krew() {
    sed -e '/^#/d' -e "s/@VERSION@/$VERSION/g" build/krew.yaml >"$krew"
    for arch in $ARCHES; do
        sum=$(sha256sum "$DIST/${name}_linux_$arch.tar.gz" | cut -d ' ' -f 1)
        sed -i "s/@SHA256_$arch@/$sum/" "$krew"
    done
    if grep -n '@' "$krew"; then
        fail "$krew has unfilled placeholders"
    fi
    made "${krew##*/}"
}

checksums() {
    (cd "$DIST" && find . -maxdepth 1 -type f -name 'ca-overlap*' | sed 's|^\./||' | LC_ALL=C sort | xargs sha256sum) \
        >"$DIST/.checksums"
    mv "$DIST/.checksums" "$DIST/checksums.txt"
    made checksums.txt
}

# Pushes image and chart from the files. Prints their digests, which are signed later.
push() {
    layout=$(mktemp -d)
    trap 'rm -rf "$layout"' EXIT
    tar --extract --file "$IMAGE_TAR" --directory "$layout"
    # The image of one platform is not a layout: crane reads the archive itself.
    [ -f "$layout/oci-layout" ] && image=$layout || image=$IMAGE_TAR
    "$CRANE" push ${PLAIN_HTTP:+--insecure} "$image" "$REGISTRY/ca-overlap:$VERSION" >"$DIST/.image"
    "$HELM" push ${PLAIN_HTTP:+--plain-http} "$DIST/ca-overlap-$VERSION.tgz" "oci://$REGISTRY/charts" 2>&1 |
        tee "$DIST/.push" >&2
    digest=$(sed -n 's/^Digest: *\(sha256:[0-9a-f]*\)$/\1/p' "$DIST/.push")
    [ -n "$digest" ] || fail "helm push names no digest"
    echo "$REGISTRY/charts/ca-overlap@$digest" >"$DIST/.chart"
    cat "$DIST/.image" "$DIST/.chart"
}

# Signs without a key: the certificate names the workflow, and the signature is in a public log.
sign() {
    image=$(cat "$DIST/.image")
    "$COSIGN" sign --yes "$image"
    "$COSIGN" attest --yes --type cyclonedx --predicate "$DIST/${name}_sbom.cdx.json" "$image"
    "$COSIGN" sign --yes "$(cat "$DIST/.chart")"
    "$COSIGN" sign-blob --yes --bundle "$DIST/checksums.txt.sigstore.json" "$DIST/checksums.txt" >/dev/null
    made checksums.txt.sigstore.json
}

publish() {
    notes >"$DIST/.notes"
    case $VERSION in
        *-*) kind=--prerelease ;;
        *) kind=--latest ;;
    esac
    gh release create "v$VERSION" --verify-tag --title "v$VERSION" "$kind" --notes-file "$DIST/.notes" \
        "$DIST"/ca-overlap* "$DIST"/checksums.txt*
}

made() {
    echo "$DIST/$1: $(wc -c <"$DIST/$1") bytes"
}

fail() {
    printf 'release: %s\n' "$*" >&2
    exit 1
}

main "$@"
