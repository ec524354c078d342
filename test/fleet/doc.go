// Package fleet proves the control plane and its PoPs together: the rooms of both, joined as the programs join them, over
// a real bus with real certificates.
package fleet
