// Package flood tells an attack from a rush of real visitors, and takes measures against the first, the
// least harmful first: the FloodPolicy document.
//
// # Detection
//
// There is no threshold of requests a second. A site is under attack when two things are true at once:
// something saturates (places in its tiers, processor time, the origin's answers take much longer), and what
// comes is not what used to come. The second is measured, not guessed: each request is sorted into cells
// along a few dimensions (what is asked for, names of parameters, whether the URL was ever seen, browser,
// order of the fields, how its source behaves, how near it is to an order), the shares of the cells are
// learned while all is calm, and the distance between the shares of now and the learned ones is the sum of
// the total variation along the dimensions, less what is usual for this site. A rush of real visitors is
// more of the same, so the distance stays small however large it is; an attack of the same size moves most
// of the mass. What the sites' tiers do about a rush (overflow, stale answers, the waiting room) needs no
// detector.
//
// # Measures
//
// Steps in a ladder: stale, cache, challenge, limit, drop. The first two change nothing for a visitor but the
// age of a page. The others act on suspects alone: requests whose cells are much more frequent now than they
// were learned to be (a sum of log ratios, as in Kim et al., PacketScore, IEEE TDSC 3(2), 2006). A step is
// taken when the one before did not end the saturation in half a second, and is left when there was none for the
// hold time, which doubles each time that was too early. A visitor with a basket is no suspect, whatever it
// sends, up to a ceiling that no person reaches. Visitors that are known (a signed cookie) have to look much
// stranger than others. What each step did to known visitors is counted, and a step that harms more of them
// than the policy allows is taken back for a while.
//
// # Memory
//
// The same for ten visitors and ten million: a table of sources and a count-min sketch of URLs for the process
// (4 MiB), and 26 KiB for each site with a policy that had a request. Nothing is allocated for a request.
//
// # What it does not do
//
// Tell apart bots that behave as visitors do in every dimension: they are met by the tiers' limits, the
// waiting room and, where a policy asks for it, rate limits. Learn from other edges.
package flood
