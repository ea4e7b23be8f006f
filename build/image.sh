#!/bin/sh
# Packs the static program into an image: `image.sh docker` by the Dockerfile and BuildKit,
# `image.sh tar` without an engine, as an archive. Run by `make image` and `make image-tar`.
#
# By environment:
#   IMAGE           NAME:TAG of the image
#   IMAGE_DIR       where to work
#   IMAGE_PROGRAMS  the programs by platform: "amd64=FILE arm64=FILE"; no space in a FILE
#   IMAGE_TAR       the archive that is written
#   PACK            the program of build/image
#   VERSION         goes into the labels
set -eu

how=$1

# No time of a build: the same commit gives the same bytes.
labels() {
    url=https://github.com/ca-overlap/ca-overlap
    cat <<EOF
title=ca-overlap
description=Keeps the previous CA beside the new one when a Secret's ca.crt is rotated
url=$url
source=$url
documentation=$url/blob/main/README.md
licenses=Apache-2.0
version=$VERSION
EOF
    git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null | sed 's/^/revision=/'
}

# The context of the Dockerfile: one program for each platform, and nothing else.
context=$IMAGE_DIR/context
rm -rf "$context"
platforms=
for program in $IMAGE_PROGRAMS; do
    arch=${program%%=*}
    mkdir -p "$context/$arch"
    cp "${program#*=}" "$context/$arch/ca-overlap"
    TZ=UTC0 touch -t 197001010000 "$context/$arch/ca-overlap"
    platforms="$platforms linux/$arch"
done

set --
while read -r label; do
    set -- "$@" --label "org.opencontainers.image.$label"
done <<EOF
$(labels)
EOF

case $how in
    docker)
        DOCKER_BUILDKIT=1 BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --file Dockerfile "$@" --tag "$IMAGE" \
            --platform "$(echo $platforms | tr ' ' ,)" --build-arg SOURCE_DATE_EPOCH=0 "$context"
        ;;
    tar)
        for platform in $platforms; do
            set -- "$@" "$platform=$context/${platform#linux/}"
        done
        "$PACK" --name "$IMAGE" --entrypoint /ca-overlap -o "$IMAGE_TAR" "$@"
        echo "$IMAGE for$platforms is in $IMAGE_TAR, $(wc -c <"$IMAGE_TAR") bytes"
        ;;
    *)
        echo "image.sh: what is $how? docker or tar" >&2
        exit 1
        ;;
esac
