// Package shop is a real little shop that runs as a plain HTTP origin: catalogue, search,
// generated pictures, baskets and an order ledger on disk.
//
// Two shops (say a home and an overflow cluster) may be two processes that open the same
// data directory at once. Baskets and orders live in one SQLite file in WAL mode, so they
// survive the death of either process. An order is placed exactly once per idempotency key.
//
// The shop knows nothing of any edge in front of it. It says what may be cached with
// standard fields (RFC 9111), how busy it is (see Config.ReportLoad), and which cluster
// answered (X-Shop-Cluster). Its capacity is real: a request holds one of Config.Capacity
// slots for its service time, waits in a bounded queue for one, or gets 503 with
// Retry-After.
package shop
