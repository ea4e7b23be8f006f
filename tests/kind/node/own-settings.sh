#!/bin/sh
# Runs before kind's entrypoint, which its arguments name. systemd and kubelet set these for the whole
# machine. Here they find the values that they want, or a file of their own.
set -eu
for setting in fs/file-max fs/nr_open vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1; do
    name=${setting%=*}
    mkdir -p "/run/settings/${name%/*}"
    case $setting in
        *=*) echo "${setting#*=}" >"/run/settings/$name" ;;
        *) cat "/proc/sys/$name" >"/run/settings/$name" ;;
    esac
    mount --bind "/run/settings/$name" "/proc/sys/$name"
done
exec "$@"
