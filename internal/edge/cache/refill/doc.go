// Package refill fetches again, in the background, what a purge ended or a list names, before a visitor has to
// wait for it. It bounds itself: by site in rate and in flight, over all sites in flight and in what waits. What
// a fetch costs an origin is the fetcher's to bound; where it finds no room the site rests.
package refill
