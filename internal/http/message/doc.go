// Package message is the one shape of a request and of an answer for HTTP/1, 2 and 3.
//
// A message is flat: its method, target and fields are spans of one arena that is kept
// and used again for the next message. There is no map and no string, fields keep the
// order in which they came, and a known name is found through a slot. Reading a message
// allocates nothing once its arena has grown to its size.
//
// Spans that an accessor lends are good until the message is changed or reset.
package message
