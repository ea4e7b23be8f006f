# The image: the static program and nothing else. `make image` builds it with Docker (BuildKit),
# `make image-tar` without an engine; docs/release.md says how far they are the same, byte by byte.
#
# The context holds one program for each platform, amd64/ca-overlap and arm64/ca-overlap; no
# compiler runs here, so that what is packed is what was tested.
FROM scratch
ARG TARGETARCH
COPY --chmod=0555 ${TARGETARCH}/ca-overlap /ca-overlap
# By number: without /etc/passwd there are no names, and runAsNonRoot wants a number anyway.
USER 65532:65532
ENTRYPOINT ["/ca-overlap"]
