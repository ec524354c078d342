// Package challenge asks visitors for work before they go on: a page whose script finds numbers that only
// trying finds, which takes a telephone a second and an attacker a processor for as long as the attack lasts.
// Nobody else is asked: no picture puzzle, no third party, nothing about the person.
//
// It decides nothing. Other stages ask through stage.Challenger; this one serves the page, takes the solution
// and knows who has solved.
//
// # The puzzle
//
// A signed text that says how much work it is, when and for whom it was made, and a random number. From its
// SHA-256 comes a seed; the work is to find eight numbers for which the SHA-256 of seed, index and number begins
// with effort-3 zero bits. Eight small searches take a steadier time than one large. Nothing is kept for a
// puzzle. When it is solved its random number goes into a filter of a fixed size, so that it is good once; a
// puzzle that is older than the filter remembers is not taken.
//
// # Who cannot run the script
//
// Presses a button, once the time that the document names is over. Such proofs are bounded for each source, as
// they cost a program nothing but time. Programs get the puzzle as JSON and send the proof in a field.
//
// # The proof
//
// Is a signed cookie, or field. It is bound softly: to a network (IPv4 /24, IPv6 /48) and to a User-Agent, of
// which one may change. It is good for 30 requests a second, and from four networks at a time, the one in which the work was
// done always among them: one proof that a swarm shares is challenged elsewhere. Where cookies are blocked the client's address and
// User-Agent are remembered for ten minutes, in a table of a fixed size, for 300 requests.
//
// # A visitor with a basket
//
// Is never challenged, whoever asks; nor are callbacks and verified bots (stage.Visitor.Exempt).
//
// # What it does not do
//
// It tells no person from a program: who pays for the work comes in. It makes a flood dear, and it does not end
// one that is willing to pay.
package challenge
