// Package cache is the stage that stores answers and serves them again: a shared cache by RFC
// 9111. Package semantics judges, package store keeps, and flights fetch: one for all who
// want the same answer at the same time. DESIGN.md says what holds always.
package cache
