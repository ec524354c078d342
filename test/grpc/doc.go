// Package grpc holds the edge against gRPC's own client and server, with the cases of its
// interoperability suite. It is a module of its own, so that the product does not depend on
// what only its test needs.
package grpc
