#!/bin/sh
# Prints the settings of the machine that engines, systemd and kubelets like to change, without those
# that count something.
sysctl --all 2>/dev/null | grep -E '^(kernel|vm|fs|net\.core|net\.ipv4\.ip_forward|net\.bridge)\b' |
    grep -v -E '^(fs\.(.*state|.*-nr|quota\.)|kernel\.(random|ns_last_pid|pty\.nr|.*_id\b|sched)|net\.core\.netdev_rss_key)'
