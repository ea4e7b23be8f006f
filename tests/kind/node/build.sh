#!/usr/bin/env bash
# Builds a node image for kind from Debian's packages and Go modules, for machines that reach no
# registry of images: target/kind/node-VERSION.tar, the root of a node, for `docker import`. Run by
# `make kind-node-image`; quick when nothing has changed. Needs root and Debian.
#
#   build.sh VERSION   of Kubernetes, such as 1.36.3
#
# kind's entrypoint, units and configuration come from its Go module, pause from that of Kubernetes.
# Different from the image that kind publishes: Debian's containerd, runc and network plugins;
# network.yaml instead of kindnet, so network policies have no effect; no CoreDNS, no volumes.
#
# Environment: KIND_VERSION (its Go module), WORK (target/kind).
set -euo pipefail

version=${1:-}
minor=$(cut -d . -f 2 <<<"$version")
current= debian=
here=$(cd "$(dirname "$0")" && pwd)
work=$(realpath -m "${WORK:-$here/../../../target/kind}")
build=$work/build-$version
image=$work/node-$version.tar
root=$build/root
suite=bookworm
# What kind's base image has of Debian, and what it builds itself.
packages="systemd,systemd-sysv,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,\
libseccomp2,ca-certificates,jq,procps,hostname,containerd,runc,containernetworking-plugins"
kubernetes="kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubeadm kubectl"

main() {
    [[ $version =~ ^1\.[0-9]+\.[0-9]+$ ]] || fail "usage: build.sh VERSION, such as 1.36.3"
    : "${KIND_VERSION:?the version of kind, such as v0.33.0}"
    if [[ -e $image && $(cat "$image.inputs" 2>/dev/null) == "$(inputs)" ]]; then
        say "ready: $image"
        return
    fi
    preflight
    mkdir -p "$build"
    trap failed EXIT
    exec 9>"$work/build.lock"
    flock --nonblock 9 || fail "another build is at work in $work"
    step "programs of Kubernetes $version, beside Debian" programs_and_debian
    step "kind's files" kinds_files
    step "images of the control plane" images
    step "image" pack
    say "ready: $image"
}

# What the image is made from.
inputs() {
    printf '%s\n' "$version $KIND_VERSION $suite $(go env GOVERSION GOARCH | xargs)"
    cksum "$here"/* | sed "s,$here/,,"
}

preflight() {
    local absent=() name
    ((EUID == 0)) || fail "needs root, for a root of Debian"
    for name in go cc debootstrap jq ldd unshare; do
        command -v "$name" >/dev/null || absent+=("$name")
    done
    ((${#absent[@]} == 0)) || fail "not installed: ${absent[*]}; on Debian: apt-get install -y gcc debootstrap jq util-linux, and Go from https://go.dev/dl"
}

# Runs one step, and shows the end of its log if it fails. Not in a condition, in which a failing
# command would not end it.
step() {
    local begin=$SECONDS
    current=$1
    shift
    say "$current"
    "$@" >"$build/log" 2>&1
    say "$current: $((SECONDS - begin)) s"
    current=
}

failed() {
    [[ -z $debian ]] || kill -KILL "$debian" || true
    [[ -n $current ]] || return 0
    tail -n 20 "$build/log" >&2
    say "$current: failed; the end of $build/log is above"
}

# Debian is mostly waiting, and its own log is shown after that of the programs.
programs_and_debian() {
    debian >"$build/debian.log" 2>&1 &
    debian=$!
    programs
    wait "$debian" || { cat "$build/debian.log" && return 1; }
    debian=
}

# Builds with the versions of the modules that Kubernetes was released with. Kubernetes has its own
# libraries as directories in its repository; they are modules of the same version.
programs() {
    local module libraries=v0.${version#1.} flags name packages=(go.etcd.io/etcd/server/v3)
    module=$(module_directory "k8s.io/kubernetes@v$version")
    for name in $kubernetes; do
        packages+=("k8s.io/kubernetes/cmd/$name")
    done
    mkdir -p "$build/module" "$build/programs"
    sed -e 's,^module .*,module ca-overlap.dev/kind-node,' \
        -e "s,=> ./staging/src/\(.*\),=> \1 $libraries," \
        -e "s,^\t\(k8s.io/[a-z-]*\) v0.0.0\( .*\)*$,\t\1 $libraries\2," \
        "$module/go.mod" >"$build/module/go.mod"
    echo "require k8s.io/kubernetes v$version" >>"$build/module/go.mod"
    cp "$module/go.sum" "$build/module/go.sum"
    flags="-s -w"
    for name in "gitVersion=v$version" gitMajor=1 "gitMinor=$minor"; do
        flags+=" -X k8s.io/component-base/version.$name"
    done
    chmod u+w "$build/module/go.sum"
    (cd "$build/module" && go build -v -mod=mod -trimpath -ldflags "$flags" -o "$build/programs/" "${packages[@]}")
    mv "$build/programs/server" "$build/programs/etcd"
    cc -Os -static -DVERSION="$version" -o "$build/programs/pause" "$module/build/pause/linux/pause.c"
}

# MODULE: prints where Go keeps it. Outside of any module, so that no go.mod changes.
module_directory() {
    (cd / && GOWORK=off go mod download -json "$1") | jq --raw-output .Dir
}

# A root of Debian, kept for the next version.
debian() {
    local base=$work/debian-$suite
    if [[ $(cat "$base.packages" 2>/dev/null) != "$packages" ]]; then
        rm -rf "$base" "$base.packages"
        # The kernel ends unshare with this subshell, and debootstrap with unshare.
        setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc --propagation private \
            debootstrap --variant=minbase --include="$packages" "$suite" "$base"
        echo "$packages" >"$base.packages"
    fi
    rm -rf "$root"
    cp -a "$base" "$root"
}

# Does with Debian's root what kind's Dockerfile (images/base) does.
kinds_files() {
    local files pause proxy
    pause=$(name_of pause)
    proxy=$(name_of kube-proxy)
    files=$(module_directory "sigs.k8s.io/kind@$KIND_VERSION")/images/base/files
    cp -rT --no-preserve=mode,ownership "$files" "$root"
    chmod 755 "$root"/usr/local/bin/* "$root"/kind/bin/*
    rm -rf "$root/LICENSES" "$root"/usr/share/{doc,man,locale}/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
    (
        cd "$root/lib/systemd/system"
        rm -f sysinit.target.wants/systemd-tmpfiles-setup.service multi-user.target.wants/* \
            local-fs.target.wants/* sockets.target.wants/*udev* sockets.target.wants/*initctl* \
            basic.target.wants/* "$root"/etc/systemd/system/*.wants/*
    )
    echo "ReadKMsg=no" >>"$root/etc/systemd/journald.conf"
    # These are settings of a machine, and a node shares its machine's.
    rm -f "$root"/usr/lib/sysctl.d/*
    install -m 755 "$here/own-settings.sh" "$root/kind/bin/"
    chroot "$root" systemctl enable kubelet.service containerd.service undo-mount-hacks.service
    chroot "$root" systemctl mask systemd-binfmt.service

    ln -s /usr/bin/containerd "$root/usr/local/bin/containerd"
    mkdir -p "$root"/opt/cni/bin "$root"/etc/cni/net.d "$root"/etc/kubernetes/manifests "$root"/kind/manifests
    cp "$root"/usr/lib/cni/{host-local,loopback,ptp,portmap} "$root/opt/cni/bin/"
    chroot "$root" ctr oci spec |
        jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
            >"$root/etc/containerd/cri-base.json"
    # containerd 1.6 waits for a plugin that is not there, and keeps no layer for a second import. A
    # machine may not let root lower oom_score_adj.
    sed -i -e '/^\[proxy_plugins/,/^$/d' -e '/^\[proxy_plugins/,/^  address/d' \
        -e 's/discard_unpacked_layers = true/discard_unpacked_layers = false/' \
        -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
        -e "s,sandbox_image = .*,sandbox_image = \"$pause\"," "$root/etc/containerd/config.toml"
    # kubelet 1.35 and newer refuse cgroup v1 by default.
    [[ ! -d /sys/fs/cgroup/memory ]] || ((minor < 35)) ||
        echo 'KUBELET_EXTRA_ARGS=--runtime-cgroups=/system.slice/containerd.service --fail-cgroupv1=false' >"$root/etc/default/kubelet"

    cp "$build"/programs/{kubeadm,kubelet,kubectl} "$root/usr/bin/"
    printf 'v%s' "$version" >"$root/kind/version"
    sed "s,IMAGE,$proxy," "$here/network.yaml" >"$root/kind/manifests/default-cni.yaml"
    cp "$here/storage.yaml" "$root/kind/manifests/default-storage.yaml"
}

# PROGRAM: prints the name of its image, as kubeadm uses it.
name_of() {
    "$build/programs/kubeadm" config images list --kubernetes-version "v$version" |
        grep -E "/$1:" || fail "kubeadm names no image of $1"
}

# Writes one image for each program into the root's containerd, which unpacks them in the node.
images() {
    local name
    rm -rf "$build/images"
    mkdir -p "$build/images"
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler; do
        layer "$name"
        archive "$name" "/usr/local/bin/$name"
    done
    layer kube-proxy /usr/sbin/xtables-nft-multi /usr/sbin/nft "$root"/usr/lib/*/xtables/*.so
    for name in ip{,6}tables{,-save,-restore}; do
        ln -s xtables-nft-multi "$build/layer/usr/sbin/$name"
    done
    archive kube-proxy /usr/local/bin/kube-proxy
    layer pause
    archive pause /usr/local/bin/pause
    mv "$build/images" "$root/images"
    unshare --mount --net --pid --fork --kill-child --mount-proc="$root/proc" --propagation private \
        chroot "$root" bash -euc "$(declare -f import); import"
    rm -rf "$root/images"
}

# PROGRAM FILES…: makes a root with the program, files of Debian, and the libraries of both.
layer() {
    local layer=$build/layer file
    rm -rf "$layer"
    mkdir -p "$layer"/usr/{lib,lib64,bin,sbin,local/bin} "$layer"/{etc,run,tmp}
    for file in lib lib64 bin sbin; do
        ln -s "usr/$file" "$layer/$file"
    done
    cp "$build/programs/$1" "$layer/usr/local/bin/"
    cp "$build/programs/$1" "$root/tmp/program"
    shift
    set -- "${@#"$root"}"
    # ldd fails on a static program.
    { chroot "$root" ldd /tmp/program "$@" || true; } | sed -n -E 's,^(.*=> |[[:space:]]*)(/[^ ]+) \(0x.*,\2,p' | sort -u |
        cat - <(printf '%s\n' "$@") | while read -r file; do
        [[ -z $file ]] || install -D "$root$file" "$layer$file"
    done
    rm "$root/tmp/program"
}

# PROGRAM ENTRYPOINT: packs the layer as `docker save` does.
archive() {
    local out=$build/archive name
    name=$(name_of "$1")
    rm -rf "$out"
    mkdir -p "$out"
    tar -C "$build/layer" --owner=0 --group=0 -cf "$out/layer.tar" .
    jq --null-input --arg entrypoint "$2" --arg layer "$(sha256sum "$out/layer.tar" | cut -d ' ' -f 1)" \
        --arg architecture "$(go env GOARCH)" '{
            architecture: $architecture, os: "linux", rootfs: {type: "layers", diff_ids: ["sha256:\($layer)"]},
            config: {Entrypoint: [$entrypoint], Env: ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
        }' >"$out/config.json"
    jq --null-input --arg name "$name" \
        '[{Config: "config.json", RepoTags: [$name], Layers: ["layer.tar"]}]' >"$out/manifest.json"
    tar -C "$out" -cf "$build/images/$1.tar" manifest.json config.json layer.tar
}

# Runs in the root, in namespaces of its own.
import() {
    local tries
    mount -t tmpfs tmpfs /run
    printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' >/run/config.toml
    containerd --config /run/config.toml &
    for ((tries = 0; tries < 100; tries++)); do
        ctr version >/dev/null 2>&1 && break
        sleep 0.1
    done
    for archive in /images/*.tar; do
        ctr --namespace k8s.io images import --all-platforms --no-unpack "$archive"
    done
    kill %1
    wait
}

pack() {
    tar -C "$root" --exclude=./dev/* -cf "$image.new" .
    mv "$image.new" "$image"
    inputs >"$image.inputs"
    rm -rf "$root" "$build/layer" "$build/archive"
}

say() {
    printf 'kind node: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

main
