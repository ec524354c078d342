// Command chaos breaks the network between an edge and its origins, one origin at a time, and
// kills origins and the edge itself, while visitors shop. It counts the requests that failed and
// the orders that were lost; nginx and HAProxy live through the same beside it.
//
// It is a module of its own, so that the product does not depend on what only this test needs.
package main
