//go:build !race

package apiguard

const race = false
