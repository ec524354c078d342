// Package acme runs whole edges against a real ACME authority (Pebble) and a DNS server, both in
// the test process and on 127.0.0.1: every challenge, renewal, certificates on demand, two edges
// on one storage, and what is served while the authority cannot be reached.
package acme
