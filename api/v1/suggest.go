package v1

import (
	"iter"
	"strings"
)

// Suggest finds the word that was probably meant, by the number of letters to change; empty when none is near.
// Of equally near words it takes the first by name, whatever the order of among.
func Suggest(word string, among iter.Seq[string]) string {
	best, least := "", 1+min(3, 1+len(word)/4)
	if len(word) > 256 {
		return ""
	}
	for w := range among {
		if strings.EqualFold(w, word) {
			return w
		}
		n := distance(word, w, least+1)
		if n < len(word) && (n < least || n == least && best != "" && w < best) {
			best, least = w, n
		}
	}
	return best
}

// distance counts the letters to insert, remove, replace or swap with a neighbour, in ASCII lower case,
// and stops at limit.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	a, b = strings.ToLower(a), strings.ToLower(b)
	var rows [3][260]int
	if len(b) >= len(rows[0]) {
		return limit
	}
	before, last, row := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		least := row[0]
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
			least = min(least, row[j+1])
		}
		if least > limit {
			return limit
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
