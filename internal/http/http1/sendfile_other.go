//go:build !linux || !(amd64 || arm64 || riscv64 || loong64 || ppc64le)

package http1

import "errors"

// kernelFiles says that sendFile works here.
const kernelFiles = false

func sendFile(uintptr, uintptr, int64, int64) (int, error) { return 0, errors.ErrUnsupported }

func readFile(uintptr, []byte, int64) (int, error) { return 0, errors.ErrUnsupported }
