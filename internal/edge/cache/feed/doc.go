// Package feed takes the events of a price and stock feed, purges what they name, and measures for each how
// old the oldest price was that still left the edge. Events are taken at least once, in any order: one that is
// repeated, or older than another of its sku, does nothing.
package feed
