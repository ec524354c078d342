// Package bots says how much a visitor looks like a program, and which programs are who they say: the BotPolicy
// document.
//
// # The score
//
// 0 to 100, a sum of plain observations, each of which is a mark that explain shows with its part: no User-Agent,
// a tool's name, a browser's name without what such a browser always sends, a TLS fingerprint (JA4) that the
// document names or that no browser has, a path that no visitor finds, a visitor token that came from elsewhere.
// Nothing is learned and nothing is asked of the visitor. Other stages read it as the exchange's Visitor.Score.
//
// # Verified programs
//
// A program proves who it is by a signature (Web Bot Auth: HTTP Message Signatures, RFC 9421, with Ed25519), by an
// address that it publishes, or by the name of its address in DNS, whose addresses must hold that address in turn.
// It is then never challenged and never queued. DNS is asked beside the requests; until the answer is there the
// program is neither welcome nor an impostor.
//
// # A visitor with a basket
//
// Is scored, so that it can be explained, and neither challenged nor refused.
//
// # What it does not do
//
// It does not fetch key directories or address lists: the document or its files hold them. Nonces of signatures are
// not kept, so that one may be used again for the same host until it expires, an hour at most. The score is a sum of
// guesses: a program that sends what a browser sends scores nothing.
package bots
