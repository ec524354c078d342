// Package browser meets the edge's own pages with a real browser: it solves the challenge, and waits in the line.
package browser
