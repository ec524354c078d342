// Package waf is the web application firewall: Coraza with the OWASP Core Rule Set, and what a
// tenant's WafPolicy changes of it.
//
// # One engine, many policies
//
// The rules are compiled once for the process, in about 0.3 s and 20 MiB, and are kept across
// reloads; so is the screen of each paranoia level that a policy uses. A policy is an overlay of a few hundred bytes, put on each transaction: the paranoia
// level and the threshold are variables that the rule set reads, an exclusion takes rules or
// targets out of that transaction. The other way, an engine for each policy, costs 2 MiB and 25
// to 45 ms each and was not taken. Only detection rules can be excluded: those that carry a
// paranoia level, and the body's parser errors (200002, 200003); the scoring stays whatever a
// range says. Rule ids that the rule set does not know are ignored, because it changes. An
// exclusion without rules and tags means all detection rules; without a target too, the request
// is not examined. Rule 920540 stands behind a rule that skips one rule, so it is not removed but
// given nothing to look at. A target is a variable as the trail shows it, such as ARGS:description, or
// with an expression for the key, ARGS:/^json\.items\.\d+\.name$/.
//
// # What is examined
//
// Address, request line, fields, cookies and query, then the body: forms, JSON, XML and
// multipart as such, other types as text. Not read are types that hold no text (image, video,
// audio, font, octet-stream, pdf, archives, gRPC), the tunnel after an upgrade or CONNECT,
// and trailers. The rule set itself refuses types of bodies that it does not know
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
// A request is first shown to the screen (package screen), which the policies of a paranoia
// level share: the same rules compiled to prove that none of them matches, in some tens of
// microseconds. A request that is proved clean passes without the engine, without a place and
// without a word in its detail, as the engine would let it pass; all others are the engine's, on
// the same request. relais_waf_screen_total counts what the screen said. The exclusions that hold
// are masks over the shared screen. It is not asked while one of them takes out a variable that one of its
// rules counts, such as a field of the head.
//
// A source of which eight requests in a row were not proved clean has only one of eight screened, until one is proved: an attack
// costs what the engine costs and little more. What the engine cannot judge then is screened first (unjudged), so that no verdict
// depends on it.
//
// One of 10,000 requests that are proved clean, by chance, is copied and evaluated beside the
// request all the same (Run): one at a time, and so seldom that it takes at most a hundredth of
// a CPU. If a rule matches there, the proof was wrong: that rule is doubted until the process
// ends, and the screen is not asked any more where a policy has the rule in force. It is counted
// (relais_waf_proofs_total, relais_waf_doubted_rules, the screen's verdict doubted), logged as
// an error with the request's id, and told by /status of the admin socket.
//
// The level of detection may be above that of blocking: then the rules between are evaluated
// and shown, and add to no score that blocks.
//
// An evaluation by the engine takes about 4 ms of CPU for a browser's GET, and up to a second for a body of
// 128 KiB made for that. At most four for each CPU run at a time, since more
// would only share the CPU and need memory. A request waits for its turn for at most 5 s, then gets 503.
//
// A source (an IPv4 address or an IPv6 /64) may use an eighth of the CPUs for its evaluations, and
// 5 s of CPU time of them at once. Beyond that all such sources together have half the CPUs, and wait for each other: who finds no place
// in 5 s, or 64 waiting, gets 429, waf_over_budget. So an edge behind a proxy that
// is not told as trusted still serves, and who sends what defeats the screen holds up only its
// like. What is proved clean costs no budget; evaluations for a basket are not counted, and are made
// whatever its source has used.
//
// A site whose evaluations take more than half the CPUs has half of the places, so that others find
// one. Where a policy's document says how much CPU time they may take (cpu), two seconds' worth of it at
// once, what comes beyond that cannot be judged.
//
// What cannot be judged (no place, no memory for its body, a failure of the engine, a source
// or a site over its budget) is refused, or passes unexamined, as the policy's onFailure says
// (relais_waf_unexamined_total). With open, who uses up its own share may then send what it likes:
// write that only where an outage costs more than an attack.
//
// # Answers
//
// Where a policy has responseBytes, so much of an answer's body is held back and evaluated by
// the response phases (950 to 956: what errors and shells give away) if it is text/html,
// text/plain or text/xml, which are the rule set's own types. The step stands below the cache and
// the compression, so that a stored answer is examined once; the origin is asked for an answer
// without compression, and one that is compressed all the same passes, counted. Streams of events,
// tunnels and other types are not touched, what a route answers itself neither. An answer whose
// score reaches outboundThreshold becomes a 403, waf_answer_denied, but not the answer to an
// order with a good status: it is placed, and its visitor must hear of it. There is no screen for
// answers: each costs an evaluation.
//
// # A visitor with a basket
//
// An attack with a basket is an attack: the rules apply to it as to all others, and a false
// alarm costs an order. Shadow first. But nothing of ours costs it one: it has as many places
// of its own besides the common ones, so it never waits behind others, and where we fail (no
// place in 5 s, no memory for bodies, a failure of the engine) it passes unexamined. Others then
// get 503, or pass with onFailure: open. Each case is counted and marked.
//
// # Rules of the tenant's own
//
// A small typed form (ownRule), asked before the screen and in some microseconds. It is no SecLang:
// that can read files, switch the engine off and take any time it likes.
//
// # Shapes
//
// An exclusion with shapes is no mask: which values it holds for is known once a rule has matched
// them. What is denied is therefore evaluated once more without those rules and targets that matched only values of
// its shapes (evaluate). The screen is not told of it, so that it lets nothing more pass.
//
// # What it learns
//
// Which rules hit visitors with a basket who then ordered (the room learn): Learned lists the
// exclusions that follow, a Prover replays the rule set's attack tests against them. Where the
// origin names orders (learning.orderField), a rule that hits too many buyers is demoted: a
// request that it alone would deny is judged again without it and passes, which is marked and
// counted as demoted. That second evaluation is the price, paid only where something is demoted
// for that place and target. A request that no rule hits pays nothing.
//
// A denied request's trail holds the policy with its revision and the fewest exclusions that let
// it pass. For the rule set's own 2,703 denied tests they are enough, and in all but two
// (921110-6, 933170-6) none could be left out.
//
// # What may follow
//
// A policy's candidate judges a share of the requests once the policy has, with its own overlay on the same engine
// and its own screen. It decides nothing until its time has come; where it would do otherwise is marked and counted by rule
// (Candidates). It is asked only for what the policy judged, and an evaluation only takes what is left over.
//
// # What it does not do
//
// Decode compressed bodies. Prove bodies of unknown types clean: those cost what
// Coraza costs. It leaves the engine's own prefilter (SecRxPreFilter) off: it loses matches, of
// 942220 and 932311 in the rule set's regression requests.
package waf
