//go:build !linux

package main

import "syscall"

// ownChild keeps Ctrl-C from reaching a child before the rig has seen it.
func ownChild() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
