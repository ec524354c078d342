//go:build !race

package waf

const raced = false
