//go:build linux

package main

import (
	"net/netip"
	"testing"
)

func TestANetworkThatTheMachineKnowsIsNotTaken(t *testing.T) {
	known := routes(`default via 192.0.2.1 dev eth0
10.64.0.0/11 dev tun0 scope link
local 10.96.3.4 dev lo table local proto kernel scope host
`)
	for second, want := range map[byte]bool{76: true, 96: true, 116: false} {
		all := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, second, 0, 0}), 16)
		if got := overlapsAny(all, known); got != want {
			t.Errorf("10.%d.0.0/16: taken is %v", second, got)
		}
	}
}
