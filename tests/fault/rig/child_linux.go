package main

import "syscall"

// ownChild makes a child end with the rig, even where the rig is killed.
func ownChild() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
