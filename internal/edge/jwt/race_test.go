//go:build race

package jwt

const race = true
