#!/bin/sh
# The steps of a release, each run by `make release-…` in the order of docs/release.md.
#
# Environment: VERSION, DIST (the output directory), PLATFORMS (such as linux_amd64); REGISTRY and
# REPOSITORY (make/owner.mk); for some steps HELM, KUBECTL, CRANE, COSIGN (programs), IMAGE_TAR; for
# the archive PROGRAM, PLATFORM, and MAN, COMPLETIONS, LICENCES (what is packed beside the program).
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
        manifest) manifest ;;
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
    owned
    tag=$(git describe --tags --exact-match 2>/dev/null) || fail "this commit has no tag"
    [ "$tag" = "v$VERSION" ] || fail "the tag is $tag, and Cargo.toml says $VERSION"
    [ -z "$(git status --porcelain)" ] || fail "the work tree has uncommitted changes"
    notes >/dev/null
    grep -q "^version: $VERSION\$" manifests/chart/Chart.yaml || fail "Chart.yaml does not have version $VERSION"
}

# Fails unless make/owner.mk says where the release goes.
owned() {
    [ -n "$REGISTRY" ] && [ -n "$REPOSITORY" ] ||
        fail "make/owner.mk names no REGISTRY or no REPOSITORY: see docs/release.md#before-the-first-release"
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
    cp "$PROGRAM" "$root/ca-overlap"
    cp LICENSE README.md CHANGELOG.md "$LICENCES" "$root"
    mkdir "$root/man" "$root/completions"
    cp "$MAN"/*.1 "$root/man"
    cp "$COMPLETIONS"/* "$root/completions"
    find "$root" -type d -exec chmod 0755 {} +
    find "$root" -type f -exec chmod 0644 {} +
    chmod 0755 "$root/ca-overlap"
    # On macOS, tar has other flags, and GNU's is gtar.
    tar=$(command -v gtar || command -v tar)
    (cd "$root" && "$tar" --create --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -- *) |
        gzip -n -9 >"$DIST/${name}_$PLATFORM.tar.gz"
    made "${name}_$PLATFORM.tar.gz"
}

# Unpacks the programs for Linux from the archives, for the image.
unpack() {
    for platform in $PLATFORMS; do
        arch=${platform#linux_}
        [ "$arch" != "$platform" ] || continue
        mkdir -p "$DIST/.programs/$arch"
        tar --extract --gzip --file "$DIST/${name}_$platform.tar.gz" --directory "$DIST/.programs/$arch" ca-overlap ||
            fail "no archive for $platform: run make release-archive first"
    done
}

# Packs the chart with what manifests/chart leaves empty: the image, and the addresses of this
# repository.
chart() {
    owned
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    chart=$root/ca-overlap
    cp -R manifests/chart "$chart"
    docs=$REPOSITORY/blob/v$VERSION/docs
    sed -i "s|^  repository: \"\"|  repository: $REGISTRY/ca-overlap|" "$chart/values.yaml"
    sed -i "s|runbook: docs/|runbook_url: $docs/|" "$chart/files/prometheusrule.yaml"
    sed -i "s|](../../docs/|]($docs/|g" "$chart/README.md"
    # Chart.yaml ends with its annotations.
    cat >>"$chart/Chart.yaml" <<EOF
  artifacthub.io/images: |
    - name: ca-overlap
      image: $REGISTRY/ca-overlap:$VERSION
  artifacthub.io/links: |
    - name: Documentation
      url: $docs/README.md
home: $REPOSITORY
sources: [$REPOSITORY]
EOF
    "$HELM" package "$chart" --destination "$DIST" >/dev/null
    # The image is what a chart without one would fail at.
    "$HELM" template ca-overlap "$DIST/ca-overlap-$VERSION.tgz" |
        grep -q "image: $REGISTRY/ca-overlap:$VERSION\$" || fail "the chart does not name the image"
    made "ca-overlap-$VERSION.tgz"
}

# Renders overlays/full with the published image.
manifest() {
    owned
    "$KUBECTL" kustomize manifests/overlays/full |
        sed "s|image: ca-overlap:dev\$|image: $REGISTRY/ca-overlap:$VERSION|" >"$DIST/.install"
    [ "$(grep -c "image: $REGISTRY/ca-overlap:$VERSION\$" "$DIST/.install")" = 2 ] ||
        fail "install.yaml does not name the image of webhook and keeper"
    mv "$DIST/.install" "$DIST/install.yaml"
    made install.yaml
}

fill_krew() {
    owned
    sed -e '/^#/d' -e "s/@VERSION@/$VERSION/g" -e "s|@REPOSITORY@|$REPOSITORY|g" build/krew.yaml >"$krew"
    for platform in $PLATFORMS; do
        sum=$(sha256sum "$DIST/${name}_$platform.tar.gz" | cut -d ' ' -f 1)
        sed -i "s/@SHA256_$platform@/$sum/" "$krew"
    done
    if grep -n '@' "$krew"; then
        fail "$krew has unfilled placeholders"
    fi
    made "${krew##*/}"
}

checksums() {
    (cd "$DIST" && find . -maxdepth 1 -type f '(' -name 'ca-overlap*' -o -name install.yaml ')' | sed 's|^\./||' | LC_ALL=C sort | xargs sha256sum) \
        >"$DIST/.checksums"
    mv "$DIST/.checksums" "$DIST/checksums.txt"
    made checksums.txt
}

# Pushes image and chart from the files. Prints their digests, which are signed later.
push() {
    owned
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
        "$DIST"/ca-overlap* "$DIST"/install.yaml "$DIST"/checksums.txt*
}

made() {
    echo "$DIST/$1: $(wc -c <"$DIST/$1") bytes"
}

fail() {
    printf 'release: %s\n' "$*" >&2
    exit 1
}

main "$@"
