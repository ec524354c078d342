package screen

import "slices"

// bestFit is the byte that the engine's urlDecodeUni makes of %uXXXX: the nearest character of
// ASCII (code page 20127) where there is one, else the low byte, full-width forms folded.
func bestFit(code int) byte {
	if i, ok := slices.BinarySearchFunc(bestFitASCII, code, func(e uint32, code int) int { return int(e>>8) - code }); ok {
		return byte(bestFitASCII[i])
	}
	low := byte(code)
	if low > 0 && low < 0x5f && code>>12 == 15 && code>>8&15 == 15 {
		low += 0x20
	}
	return low
}
