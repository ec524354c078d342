//go:build !linux

// Command cacheindex needs Linux, whose proc file system says what is resident.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "cacheindex: needs Linux")
	os.Exit(1)
}
