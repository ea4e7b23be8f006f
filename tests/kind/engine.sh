#!/usr/bin/env bash
# A Docker engine for kind. Where one answers it is used, and nothing else of this runs. Elsewhere
# dockerd runs in namespaces of its own, for mounts, network and processes.
#
#   engine.sh run COMMAND…  runs COMMAND with an engine, and ends with COMMAND's exit status
#   engine.sh up            starts an engine that stays until `down`; `run` uses it
#   engine.sh down          ends it, and removes what a killed one left behind
#
# When the first process of the namespaces ends, the kernel ends all others and removes mounts and
# network. A supervisor outside of them then ends what `run` started, and removes cgroups and data.
# It ends the engine when `run` ends, however that ends. If the supervisor itself is killed, the
# kernel ends the engine, and the next `up`, `run` or `down` removes cgroups and data.
#
# Nothing in the engine reaches another network: its images are built or loaded here.
#
# Environment: WORK, a directory for socket, data and log (target/kind).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$(realpath -m "${WORK:-$here/../../target/kind}")
state=$work/engine
socket=$state/docker.sock
# One at a time on a machine, because the name of its cgroup is fixed.
lock=/run/lock/ca-overlap-kind
cgroup=ca-overlap-kind
engine= network=none
packages="docker.io containerd runc iptables iproute2 util-linux jq"

main() {
    local command=${1:-} count=$#
    shift || true
    case $command:$count in
        run:1) usage ;;
        run:* | up:1 | down:1 | supervise:2 | inside:1) "$command" "$@" ;;
        *) usage ;;
    esac
}

usage() {
    echo "usage: engine.sh up | down | run COMMAND..." >&2
    exit 64
}

run() {
    local status=0 is_ours=false
    if answers; then
        exec "$@"
    fi
    if ! is_up; then
        start "$$"
        is_ours=true
    fi
    # The engine's network has no proxy.
    env -u HTTP_PROXY -u HTTPS_PROXY -u http_proxy -u https_proxy DOCKER_HOST="unix://$socket" \
        nsenter --net="/proc/$(<"$state/pid")/ns/net" -- "$@" || status=$?
    if $is_ours; then
        down
    fi
    exit "$status"
}

up() {
    if answers; then
        say "a Docker engine answers; it is used"
        return
    fi
    is_up && fail "it is up already: use it with engine.sh run, or end it with engine.sh down"
    start none
    say "up, until engine.sh down; docker info: $here/engine.sh run docker info"
}

down() {
    need_root
    if is_up; then
        kill "$(<"$state/supervisor")"
    fi
    exec 9>>"$lock"
    flock --wait 60 9 || fail "process $(<"$lock") does not end its engine"
    clean
    say "down"
}

answers() {
    docker info >/dev/null 2>&1
}

# Whether the engine of this directory runs.
is_up() {
    [[ -S $socket && -e $state/pid ]] && DOCKER_HOST=unix://$socket docker info >/dev/null 2>&1
}

# OWNER: a process with which the engine ends, or none.
start() {
    preflight
    local holder
    if ! flock --nonblock "$lock" true; then
        holder=$(<"$lock")
        fail "another engine runs on this machine, of process $holder: one at a time"
    fi
    mkdir -p "$work"
    WORK=$work setsid "$0" supervise "$1" </dev/null >"$work/engine.log" 2>&1 &
    local supervisor=$! tries
    for ((tries = 0; tries < 300; tries++)); do
        if is_up; then
            say "ready; its log is $work/engine.log"
            return
        fi
        kill -0 "$supervisor" 2>/dev/null || break
        sleep 0.2
    done
    kill "$supervisor" 2>/dev/null || true
    tail -n 15 "$work/engine.log" >&2
    fail "dockerd does not start; the end of $work/engine.log is above"
}

# Runs outside of the namespaces, for as long as the engine does.
supervise() {
    local owner=$1
    exec 9>>"$lock"
    flock --nonblock 9 || fail "another engine runs on this machine, of process $(<"$lock")"
    echo "$$" >"$lock"
    clean
    mkdir -p "$state"
    echo "$$" >"$state/supervisor"
    trap 'exit 0' TERM INT HUP
    trap finish EXIT
    # The kernel ends unshare with this process, and the engine with unshare.
    setpriv --pdeathsig KILL unshare --mount --net --pid --fork --kill-child --mount-proc \
        --propagation private "$0" inside 9>&- &
    engine=$!
    first_of "$engine" >"$state/pid.new"
    mv "$state/pid.new" "$state/pid"
    network=$(readlink "/proc/$(<"$state/pid")/ns/net")
    if [[ $owner != none ]]; then
        tail --pid="$owner" --follow /dev/null 9>&- &
    fi
    wait -n
}

# Prints the first process of the namespaces, as this machine numbers it.
first_of() {
    local child=
    while [[ -z $child ]]; do
        kill -0 "$1"
        child=$(<"/proc/$1/task/$1/children")
    done
    echo "${child%% *}"
}

# Ends the engine and all that runs in its network, and removes what is left.
finish() {
    local one
    trap '' TERM INT HUP
    kill -KILL "$(cat "$state/pid")" || true
    # unshare ends when all processes of its namespace have ended.
    wait "$engine" || true
    for one in /proc/[0-9]*; do
        if [[ $(readlink "$one/ns/net") == "$network" ]]; then
            kill -KILL "${one#/proc/}" || true
        fi
    done 2>/dev/null
    # shellcheck disable=SC2046 # words on purpose
    kill $(jobs -p) 2>/dev/null || true
    clean
}

# The first process of the namespaces: dockerd.
inside() {
    local runtime=()
    ip link set lo up
    mount -t tmpfs tmpfs /run
    mkdir /run/lock
    # dockerd and containerd write here, too.
    private /etc
    private /opt
    stand_in kernel/keys/root_maxkeys 1000000
    stand_in kernel/keys/root_maxbytes 25000000
    if ((0x$(bounding_set) != (1 << ($(</proc/sys/kernel/cap_last_cap) + 1)) - 1)); then
        echo "root lacks a capability here, so containers do without it"
        runtime=(--add-runtime "here=$here/runtime.sh" --default-runtime here)
    fi
    exec dockerd --data-root "$state/data" --host "unix://$socket" --storage-driver overlay2 \
        --cgroup-parent "/$cgroup" --oom-score-adjust 0 "${runtime[@]}"
}

# DIRECTORY: what is written there stays here.
private() {
    mkdir -p "$state$1/upper" "$state$1/work"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$state$1/upper,workdir=$state$1/work" "$1"
}

# NAME VALUE: dockerd finds the value that it would set for the whole machine.
stand_in() {
    [[ -e /proc/sys/$1 ]] || return 0
    mkdir -p "/run/sysctl/${1%/*}"
    echo "$2" >"/run/sysctl/$1"
    mount --bind "/run/sysctl/$1" "/proc/sys/$1"
}

bounding_set() {
    sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status
}

# Removes cgroups and data of an engine that has ended. Called under the lock.
clean() {
    local root
    for root in /sys/fs/cgroup /sys/fs/cgroup/*/; do
        root=${root%/}/$cgroup
        [[ ! -d $root ]] || find "$root" -depth -type d -exec rmdir {} +
    done
    rm -rf "$state"
}

# Reports everything that is missing at once.
preflight() {
    local missing=() absent=() name lacking
    need_root
    for name in docker dockerd containerd runc iptables ip unshare nsenter setpriv jq; do
        command -v "$name" >/dev/null || absent+=("$name")
    done
    ((${#absent[@]} == 0)) ||
        missing+=("not installed: ${absent[*]}; on Debian: apt-get install -y --no-install-recommends $packages")
    grep -q '\<overlay$' /proc/filesystems || modprobe overlay 2>/dev/null ||
        missing+=("the kernel has no overlay filesystem")
    lacking=$(lacking_capabilities)
    [[ -z $lacking ]] ||
        missing+=("root lacks $lacking: a container or sandbox that is not privileged cannot run an engine")
    ((${#socket} < 108)) || missing+=("$socket is too long for a socket: set WORK to a shorter path")
    ((${#missing[@]} == 0)) || fail "no Docker engine answers, and none can run here:$(printf '\n  - %s' "${missing[@]}")"
}

need_root() {
    ((EUID == 0)) || fail "no Docker engine answers, and to run one needs root"
}

# What namespaces, mounts, links and containers need.
lacking_capabilities() {
    local held one lacking=()
    held=$((0x$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)))
    for one in 0:CHOWN 1:DAC_OVERRIDE 3:FOWNER 5:KILL 6:SETGID 7:SETUID 8:SETPCAP 12:NET_ADMIN \
        18:SYS_CHROOT 21:SYS_ADMIN 27:MKNOD; do
        ((held >> ${one%:*} & 1)) || lacking+=("CAP_${one#*:}")
    done
    echo "${lacking[*]:-}"
}

say() {
    printf 'engine: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

main "$@"
