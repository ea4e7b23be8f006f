// What runs in the pods of the suite.
package main

import (
	"fmt"
	"os"
)

func main() {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "pause":
		pause()
	default:
		fmt.Fprintln(os.Stderr, "usage: peer run|collect|find|pause")
		os.Exit(64)
	}
}
