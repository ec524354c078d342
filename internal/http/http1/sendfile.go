package http1

import (
	"cmp"
	"io"
	"syscall"

	"github.com/relais-edge/relais/internal/http/message"
)

// fileSender has the kernel send bytes of a file. Its steps are made once for a connection's gear.
type fileSender struct {
	message.FileRange
	step  func(fd uintptr) bool // toSocket
	lent  func(fd uintptr)      // fromFile
	via   func(sock, file uintptr, off, n int64) (int, error)
	sock  uintptr
	left  int64 // of what is to be sent now
	n     int
	again bool
	err   error
}

func (f *fileSender) init() { f.step, f.lent, f.via = f.toSocket, f.fromFile, sendFile }

// send sends the next n bytes of the range. It waits for the socket.
func (f *fileSender) send(raw syscall.RawConn, n int64) error {
	f.left, f.err = n, nil
	err := raw.Write(f.step)
	return cmp.Or(err, f.err)
}

// toSocket is called when a socket may have room; false when it has none.
func (f *fileSender) toSocket(fd uintptr) bool {
	f.sock = fd
	for f.left > 0 {
		f.n, f.again = 0, false
		if err := f.File.Control(f.lent); err != nil {
			f.err = err
		}
		switch {
		case f.err != nil:
			return true
		case f.again:
			return false
		case f.n == 0:
			f.err = io.ErrUnexpectedEOF // the file is shorter than was said
			return true
		}
		f.left -= int64(f.n)
		f.Off += int64(f.n)
		f.Len -= int64(f.n)
	}
	return true
}

// fromFile sends what it can, with the file's descriptor.
func (f *fileSender) fromFile(fd uintptr) {
	for {
		n, err := f.via(f.sock, fd, f.Off, f.left)
		switch err {
		case nil:
			f.n = n
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			f.again = true
		default:
			f.err = err
		}
		return
	}
}

// clear lets the file go.
func (f *fileSender) clear() { f.FileRange, f.err = message.FileRange{}, nil }

// SendsFiles implements message.FileSender: on plain TCP the kernel has the last word.
func (x *exchange) SendsFiles() bool {
	return kernelFiles && x.c.raw != nil && !x.c.s.unsent.Load()
}

// fromFile sends the head in c.out and what c.file says.
func (c *serverConn) fromFile(x *exchange) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.begin()
	f := &c.file
	n := int64(len(f.Lead)) + f.Len
	if f.Len > 0 {
		c.s.files.Add(1)
	}
	// The head and the bytes up to a page's end go first, on their own. Held back for what follows (MSG_MORE)
	// they would have the rest begin within a page: it is then one page more than a packet can name.
	err := c.write(f.Lead, nil)
	for err == nil && f.Len > 0 {
		k := min(f.Len, maxPiece)
		c.wg.Set(phaseWrite, c.s.watch.Limit(c.s.cfg.WriteTimeout))
		if err = f.send(c.src.raw, k); refusesFiles(err) {
			c.s.unsent.Store(true) // nobody tries again
			err = c.copyFile()
			break
		}
		c.werr = err
		c.kept.Sent(c.tcp, int(k))
	}
	c.wg.Set(phaseNone, 0)
	f.clear()
	if err == nil {
		x.outcome.Body += n
	}
	return err
}

// refusesFiles says that the kernel, or what guards it, does not send files like this one.
func refusesFiles(err error) bool {
	switch err {
	case syscall.EINVAL, syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.EPERM, syscall.EACCES:
		return true
	}
	return false
}

// copyFile reads and writes what is left of c.file; c.wmu is held.
func (c *serverConn) copyFile() error {
	f := &c.file
	buf := c.s.pool.get(sizeLarge)
	defer c.s.pool.put(buf)
	for f.Len > 0 {
		p := buf.b[:min(f.Len, sizeLarge)]
		var n int
		var err error
		if e := f.File.Control(func(fd uintptr) { n, err = readFile(fd, p, f.Off) }); e != nil {
			return e
		}
		switch {
		case err != nil:
			return err
		case n <= 0:
			return io.ErrUnexpectedEOF
		}
		if err := c.write(p[:n], nil); err != nil {
			return err
		}
		f.Off, f.Len = f.Off+int64(n), f.Len-int64(n)
	}
	return nil
}
