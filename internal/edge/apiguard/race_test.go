//go:build race

package apiguard

const race = true
