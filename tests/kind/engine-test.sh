#!/usr/bin/env bash
# Tests engine.sh: whatever ends it, nothing of it is left on the machine. Run by `make kind-test`.
# Where a Docker engine answers, engine.sh starts none, and nothing is tested.
#
# Environment: DIRECTORY (of the test), PROGRAM (a static program that waits as `PROGRAM pause`).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
WORK=$(realpath -m "$DIRECTORY")
failures=0

main() {
    if docker info >/dev/null 2>&1; then
        say "NOT TESTED: a Docker engine answers, so engine.sh starts none"
        return
    fi
    mkdir -p "$WORK"
    network=$(ls /sys/class/net)
    settings=$("$here/settings.sh")
    trap 'engine down 2>/dev/null' EXIT
    test_case "the exit status of the command is that of run" status
    test_case "a second engine refuses" second
    test_case "Ctrl-C leaves nothing" interrupted
    test_case "kill -9 of run leaves nothing" killed run
    test_case "a crash of dockerd leaves nothing" killed dockerd
    test_case "after kill -9 of the supervisor the next engine leaves nothing" supervisor
    test_case "all that is missing is named" missing
    ((failures == 0)) || fail "$failures cases failed"
    say "7 passed, 0 failed"
}

# NAME FUNCTION…: a case fails if the function does, or if something is left.
test_case() {
    local name=$1 left
    shift
    if ! "$@"; then
        say "FAILED: $name"
        failures=$((failures + 1))
    fi
    left=$(traces)
    if [[ -n $left ]]; then
        say "FAILED: $name: left behind:"
        echo "$left" >&2
        failures=$((failures + 1))
    fi
}

status() {
    local status=0
    engine run sh -c 'exit 7' 2>/dev/null || status=$?
    expect "exit status 7" "$status" 7
}

second() {
    local said
    start
    said=$(WORK=$WORK/second "$here/engine.sh" run true 2>&1) && return 1
    expect "what is said" "$said" "engine: another engine runs on this machine, of process *: one at a time"
    is_running || return 1
    said=$(engine up 2>&1) && return 1
    expect "what is said" "$said" "engine: it is up already: *"
    stop TERM
}

interrupted() {
    start
    stop INT
}

# WHAT: kills it, and nothing else.
killed() {
    start
    if [[ $1 == run ]]; then
        kill -KILL "$run"
    else
        kill -KILL "$(<"$WORK/engine/pid")"
    fi
    wait "$run" 2>/dev/null || true
    gone
}

# What then runs in the network of the engine ends by its own errors.
supervisor() {
    start
    kill -KILL "$(<"$WORK/engine/supervisor")"
    gone
    kill -KILL -- "-$run"
    wait "$run" 2>/dev/null || true
    [[ -e $WORK/engine ]] || return 1
    engine run true 2>/dev/null
}

missing() {
    local said name
    mkdir -p "$WORK/little"
    for name in dirname realpath sed grep flock; do
        ln -sf "$(command -v "$name")" "$WORK/little/$name"
    done
    said=$(PATH=$WORK/little WORK=$WORK /bin/bash "$here/engine.sh" run true 2>&1) && return 1
    expect "what is said" "$said" "*not installed: *dockerd*apt-get install*"
    said=$(WORK=$WORK setpriv --bounding-set=-sys_admin,-net_admin "$here/engine.sh" run true 2>&1) && return 1
    expect "what is said" "$said" "*root lacks CAP_NET_ADMIN CAP_SYS_ADMIN*"
    said=$(WORK=/tmp setpriv --reuid=65534 --regid=65534 --clear-groups bash -s run true <"$here/engine.sh" 2>&1) && return 1
    expect "what is said" "$said" "*needs root*"
}

# Starts an engine with a running container, as run: a process group of its own, as of a terminal.
start() {
    rm -f "$WORK/ready"
    # shellcheck disable=SC2016 # variables of the inner shell
    WORK=$WORK env --default-signal=INT setsid "$here/engine.sh" run bash -c '
        tar -C "$(dirname "$0")" -c "$(basename "$0")" | docker import - waiting >/dev/null
        docker run --detach --privileged waiting "/$(basename "$0")" pause >/dev/null
        touch "$1"
        exec sleep 3600' "$PROGRAM" "$WORK/ready" 2>"$WORK/run.log" &
    run=$!
    until [[ -e $WORK/ready ]]; do
        kill -0 "$run" 2>/dev/null || { cat "$WORK/run.log" >&2; return 1; }
        sleep 0.1
    done
    (($(traces | wc -l) > 4)) || fail "a running engine shows too little, so its absence proves nothing: $(traces)"
}

is_running() {
    kill -0 "$run"
}

# SIGNAL, to the group.
stop() {
    kill "-$1" -- "-$run"
    wait "$run" 2>/dev/null || true
    gone
}

# Waits until the supervisor has ended; the case shows what is left.
gone() {
    local limit=$((SECONDS + 30))
    until flock --nonblock /run/lock/ca-overlap-kind true || ((SECONDS > limit)); do
        sleep 0.1
    done
}

# What an engine has on the machine while it runs.
traces() {
    [[ ! -e $WORK/engine ]] || echo "directory $WORK/engine"
    grep -F "$WORK" /proc/self/mountinfo || true
    find /sys/fs/cgroup -maxdepth 2 -name ca-overlap-kind
    diff <(echo "$network") <(ls /sys/class/net) || true
    diff <(echo "$settings") <("$here/settings.sh") || true
    processes
}

# Those in the containers, and those that inherited our WORK.
processes() {
    local one
    for one in /proc/[0-9]*; do
        if grep -q ca-overlap-kind "$one/cgroup" || grep -qzFx "WORK=$WORK" "$one/environ"; then
            echo "process ${one#/proc/} $(tr '\0' ' ' <"$one/cmdline")"
        fi
    done 2>/dev/null
}

engine() {
    WORK=$WORK "$here/engine.sh" "$@"
}

# WHAT GOT PATTERN
expect() {
    # shellcheck disable=SC2053 # a pattern on purpose
    [[ $2 == $3 ]] && return
    say "$1 is \"$2\", but must be \"$3\""
    return 1
}

say() {
    printf 'engine-test: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

main "$@"
