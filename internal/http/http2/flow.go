package http2

// sendWindow is how much may be sent; it is negative after a SETTINGS frame that made it
// smaller (RFC 9113 section 6.9.2).
type sendWindow int64

// add grows the window by n, or shrinks it; false when it is over its largest size.
func (w *sendWindow) add(n int64) bool {
	*w += sendWindow(n)
	return *w <= maxWindow
}

// room is how much of n may be sent now.
func (w sendWindow) room(n int) int { return int(max(0, min(int64(n), int64(w)))) }

// recvWindow is how much the other side may send. What has been consumed is given back in
// one WINDOW_UPDATE when it is a quarter of the window.
type recvWindow struct {
	size  int // what the window was made for
	avail int // what the other side may still send
	owed  int // what was consumed and not given back yet
}

func (w *recvWindow) init(size int) { *w = recvWindow{size: size, avail: size} }

// take counts n bytes that came; false when the other side sent more than it might.
func (w *recvWindow) take(n int) bool {
	w.avail -= n
	return w.avail >= 0
}

// give counts n bytes as consumed and returns the increment to send, 0 for none yet.
func (w *recvWindow) give(n int) int {
	w.owed += n
	if w.owed*4 < w.size {
		return 0
	}
	n, w.owed = w.owed, 0
	w.avail += n
	return n
}
