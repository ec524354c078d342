// Package waitroom lets visitors in in the order of their coming: the WaitingRoom document.
//
// # The line
//
// A room has two numbers: how many places were given, and how many of them may go in. Nothing is kept for a
// visitor but a bit once it was let in. A visitor without a place gets the next number in a signed ticket (a cookie, or a field for
// programs), and shows it each time the page asks again; a ticket whose number may go in becomes a pass at
// the next request. So a million visitors cost as much memory as ten. The page shows the place and, once the
// line moves, the time.
//
// A room of kind overflow has no line until the balance stage says that every tier is full. From then on, new
// visitors do not get past those who wait: a request of theirs that needs an origin is answered with the
// page, though a place may be free at this moment. What is stored is served to everybody meanwhile. When all
// who waited are in, the line is gone. A room that is always on stands above the cache, so that nothing of the
// site is seen from outside.
//
// # How fast
//
// The number that may go in grows at a rate that follows the pools. It begins at a twentieth of the requests
// that they take when they are full. It grows by a tenth a second while half of the places are free, by a
// thirtieth while a fifth is, and falls by a fifth when one of those who were let in finds every tier full.
// It is slow since a visitor stays: what is let in now is load for minutes. Who does not come when it is their turn (a closed window, a robot that only takes tickets)
// does not hold the line: the share of those who come is measured, and as many more are called.
//
// # A restart
//
// The numbers are written to the edge's folder once a second; after a crash the line goes on a little behind
// the last place that was given, so that no number is given twice and nobody is let in who was not to be. A
// ticket of another edge with the same secret finds the place of its time of coming.
//
// # A place lets one in
//
// The first who comes with a number that was called uses it up: a bit for each of the last million numbers says so, and
// of the last 65,536 a short hash says who it was, by network and User-Agent. The same one may come again until it
// has a pass and for two minutes more, as an answer may be lost; another with a copy is as one without a ticket. It
// is decided when the request comes, not when it is answered, so that a swarm at once is one. Who finds
// every tier full has not used the place. A pass says for whom it is: a network and a User-Agent, of which one may
// change, and it is good from four of such at a time (budget.Spread).
//
// The bits are written each five seconds. Of those who came after the last time before a crash, and where the file is
// lost, a place lets one more in: a buyer who comes twice costs less than one who was called and stays out.
//
// A place that another edge gave has the number of its time of coming, as others of that time have. So it is known by what
// it was at first, in a table for an hour.
//
// # A visitor with a basket
//
// Never waits here, nor do verified bots.
//
// # What it does not do
//
// Edges of one site have a line each, as they share nothing. A visitor who keeps neither cookies nor the
// field gets a new place each time, at the end. A place lets one in at each edge. A pass is good for what one person does,
// 20 requests a second, and its copies share that.
package waitroom
