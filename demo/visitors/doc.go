// Package visitors is the one generator of shoppers, for demonstrations, tests and drills.
//
// Visitors arrive in an open loop (a Poisson process whose rate is a function of time), each
// from its own source address with one browser's coherent header set, keep a cookie jar and
// a cache, think between pages, and go through a shop's funnel: land, browse, look at
// products with their images, search, fill a basket, check out, order. Some come back, some
// are crawlers, and, when asked for, some attack.
//
// An order is placed under one idempotency key and tried at most three times in 30 seconds.
// The Report lists every order with its key and with what the buyer was shown, so that
// Report.Verify can compare it with the shop's ledger: an order that was confirmed to a
// buyer and is not in the ledger exactly once is lost.
//
// The package speaks plain HTTP/1.1 over TCP or TLS and knows nothing about what is between
// it and the shop.
package visitors
