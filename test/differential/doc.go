// Package differential holds our own HTTP/1 core against its slow and trusted twin: the same
// generated requests go to a listener with engine relais and to one with engine std (net/http),
// and every difference between the two reactions is one of a short list, with the section of
// the RFC that allows it. docs/differences.md shows the list.
package differential
