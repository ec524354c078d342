// Package trial finds out, without storing or changing anything, which pages could be cached for visitors of
// whom nothing is known: of a few pages that an origin made it asks for the same once more without cookies, and
// compares. Where they differ it asks what makes the difference: each request anew, or a cookie.
//
// It asks only with GET, for paths and queries that do not look like actions, only for visitors without a
// basket and without credentials, at a bounded rate and with places that the origins have to spare. What looks
// like the cookie of a session is never sent a second time.
package trial
