// Package segment keeps the heads and bodies of stored answers in a log of segments, in
// anonymous memory outside the Go heap or in files, behind one API. What is written goes to
// the head of the log; room is made at its tail, the oldest segment first, and an Owner says
// for each record there whether it is written again. The package knows nothing of HTTP: a
// record is a key, a head, a body, a hash and an instant. DESIGN.md gives the format and what
// holds always.
package segment
