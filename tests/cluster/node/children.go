//go:build linux

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// Tells that a child has ended, also of one that ended before this was called.
func notifyChildren(changes chan os.Signal) {
	signal.Notify(changes, syscall.SIGCHLD)
	changes <- syscall.SIGCHLD
}
