package main

import "syscall"

// ownChild makes a child end with the rig, even if the rig is killed.
func ownChild() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
