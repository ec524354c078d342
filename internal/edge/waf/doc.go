// Package waf is the web application firewall: Coraza with the OWASP Core Rule Set, and what a
// tenant's WafPolicy changes of it.
//
// # One engine, many policies
//
// The rules are compiled once for the process, in about 0.3 s and 20 MiB, and are kept across
// reloads. A policy is an overlay of a few hundred bytes, put on each transaction: the paranoia
// level and the threshold are variables that the rule set reads, an exclusion takes rules or
// targets out of that transaction. The other way, an engine for each policy, costs 2 MiB and 25
// to 45 ms each and was not taken. Only detection rules can be excluded: those that carry a
// paranoia level, and the body's parser errors (200002, 200003); the scoring stays whatever a
// range says. Rule ids that the rule set does not know are ignored, because it changes. An
// exclusion without rules and tags means all detection rules; without a target too, the request
// is not examined. A target is a variable as the trail shows it, such as ARGS:description, or
// with an expression for the key, ARGS:/^json\.items\.\d+\.name$/.
//
// # What is examined
//
// Address, request line, fields, cookies and query, then the body: forms, JSON, XML and
// multipart as such, other types as text. Not read are types that hold no text (image, video,
// audio, font, octet-stream, pdf, archives, gRPC), the tunnel after an upgrade or CONNECT,
// trailers, and answers. The rule set itself refuses types of bodies that it does not know
// (920420), methods other than GET, HEAD, POST and OPTIONS (911100), and encoded bodies
// (920450): exclude these rules where a site wants such requests. The field Expect with
// 100-continue is not shown to the rules, because the edge answers it itself. More than 1,000
// arguments are refused by our own rule 1000. Files of a multipart body are written to the
// temporary directory while they are examined, at most bodyBytes for each request, unless the
// program is built with the tag no_fs_access, which is better.
//
// Up to bodyBytes of a body are read into memory before the request goes on; this is the one
// place where a stage changes the exchange's In: its Body becomes one that first gives what was
// read, then what is left, with the same errors and trailers. A body that fails while it is
// read fails the request with that error. What lies beyond bodyBytes goes on unexamined, or,
// with oversize: reject, the request gets 413. All bodies in memory together are bounded.
//
// # What happens
//
// A request whose score reaches the threshold gets 403, http_request_denied. Its mark names the
// score, the first rules and variables, and a sample of at most 64 bytes with numbers and
// secrets hidden. In mode shadow the same is marked as would-deny.
//
// An evaluation takes about 4 ms of CPU for a browser's GET, and up to a second for a body of
// 128 KiB made for that: there is no budget of CPU yet but bodyBytes and the places. At most four for each CPU run at a time, since more
// would only share the CPU and need memory. A request waits for its turn for at most 5 s, then gets 503.
//
// # A visitor with a basket
//
// An attack with a basket is an attack: the rules apply to it as to all others, and a false
// alarm costs an order. Shadow first. But nothing of ours costs it one: it has as many places
// of its own besides the common ones, so it never waits behind others, and where we fail (no
// place in 5 s, no memory for bodies, a failure of the engine) it passes unexamined. Others then
// get 503. Each case is counted and marked.
//
// # What it does not do
//
// Examine answers. Decode compressed bodies. Screen requests before the engine: each costs what
// Coraza costs. It leaves the engine's own prefilter (SecRxPreFilter) off: it loses matches, of
// 942220 and 932311 in the rule set's regression requests.
package waf
