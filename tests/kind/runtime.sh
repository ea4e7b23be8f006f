#!/bin/sh
# runc for a machine whose root lacks a capability. Docker gives a privileged container all that the
# kernel knows, and runc fails on one that it cannot give: this removes it from the container's
# configuration (OCI runtime spec) before runc reads that.
set -eu

main() {
    previous=
    for word in "$@"; do
        case $previous in
            --bundle | -b) restrict "$word/config.json" .process.capabilities ;;
            --process | -p) restrict "$word" .capabilities ;;
        esac
        previous=$word
    done
    exec runc "$@"
}

# FILE FIELD
restrict() {
    held=$(setpriv --dump | sed -n 's/^Capability bounding set: //p')
    jq --arg held "$held" "(\$held | split(\",\")) as \$held | if $2 then
        $2 |= map_values(map(select(ltrimstr(\"CAP_\") | ascii_downcase | IN(\$held[])))) else . end" "$1" >"$1.new"
    mv "$1.new" "$1"
}

main "$@"
