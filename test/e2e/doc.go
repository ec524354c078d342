// Package e2e meets the whole binary as its users do: it starts bin/relais, sends it visitors,
// kills what can be killed, and compares what buyers were told with the shop's ledger.
package e2e
