// Package image makes pictures of other sizes and formats from those that origins have: what a request
// says by parameters (width, height, fit, quality, format, dpr, preset), within what an ImagePolicy allows.
//
// It is two stages. Ask stands above the cache: it takes the parameters off the query, brings them to
// what the policy allows, and what the client accepts to one of three classes (avif, webp, original).
// Both together name the variant (Exchange.Variant), which is part of the cache's key and no part of the
// URL, so that a purge of the original's URL reaches all of its variants. Stage stands below the cache: it
// gets the original and makes the variant of it, once however many wait.
//
// A visitor never sees an error for it. What is no picture, is animated, damaged, too large, or good enough
// already is sent as it came. Where no worker is free, or one takes too long or panics, the original is sent
// too, and stored for seconds only. The one exception is asked for: a policy with other: refuse answers
// 400 to what it does not allow.
//
// What is made has its Exif orientation applied and no metadata but a colour profile other than sRGB, which
// is kept. Hostile originals are read by the standard library and golang.org/x/image only, after their size
// was read from the head.
//
// To visitors with a basket it does what it does to all.
package image
