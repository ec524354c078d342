// Package learn remembers which rules of the firewall hit visitors who then ordered, proposes the
// narrowest exclusions for that, and says which rules may only log for a while.
//
// # What counts
//
// A visitor is one whose signed cookie says that it has a basket. What others do is counted and
// moves nothing: an address alone names nobody, and can be shared with an attacker. When such a
// visitor orders, each rule that hit it within the last six hours has one more buyer behind it,
// if the visitor, its network (an IPv4 /24, an IPv6 /48) and, where the origin names orders, the
// order are all new to that rule: one buyer counts once, whatever it does.
//
// What is kept has the key (site, method, path, rule, target). In a path, an element that looks
// like an id is kept as *; in a target, a number between dots is kept as any number. Nothing of
// the values is kept.
//
// # What an attacker can do
//
// Without orders nothing: no buyer is added, nothing is proposed, no rule is demoted. With
// baskets it can push out what is remembered of others between their hits and their orders (one
// by chance goes when a site's table is full), and lower the share of those who order, so that
// less is learned. With orders from many networks it can have a rule proposed, and, where orders
// are proven, demoted: that one rule, for that target, path and method, until it expires, and at
// most as many as the policy says at a time.
package learn
