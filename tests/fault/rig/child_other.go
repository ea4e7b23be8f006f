//go:build !linux

package main

import "syscall"

// ownChild puts a child into a separate process group, so that Ctrl-C reaches only the rig.
func ownChild() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
