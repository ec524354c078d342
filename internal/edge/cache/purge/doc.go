// Package purge says what of a cache is no longer good. A purge is a numbered entry of a log; what it
// names is a hash in a table of epochs, beside the number of its last purge. A stored answer remembers
// the number up to which purges were known when it was asked for: it is dead where anything that it is
// part of has a larger one. So a purge costs the same whatever it hits, and nothing is listed.
package purge
