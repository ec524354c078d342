package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/relais-edge/relais/internal/bus"
)

// Times of an end.
const (
	// dialTime bounds one try to connect, and each answer of the server to the end itself.
	dialTime = 5 * time.Second
	// stuckTime is how long the connection may take no byte.
	stuckTime = 2 * time.Second
	// A connection whose server is silent is given up at the third ping, 1.8 s after the last sign of life at most.
	endPing     = 600 * time.Millisecond
	endPingsOut = 2
	// The wait before the next try is a random part of a bound that doubles.
	firstWait = 250 * time.Millisecond
	maxWait   = 2 * time.Second
	// stableTime is how long a connection holds before the bound begins anew.
	stableTime = 5 * time.Second
)

// DialOptions are an end's.
type DialOptions struct {
	Addresses []string    // host:port of the servers; one of them, by chance
	TLS       *tls.Config // of Credentials.TLS; always needed with Addresses
	InProcess *Server     // instead of Addresses
	Rights    bus.Rights  // what this end may; the server has its own idea of it
	Name      string      // as the server's lists call it
	User      string      // file with the credentials of an external NATS; empty: the certificate alone
	Log       *slog.Logger
}

// End is an end of the bus that goes over a connection to a server, a bus.Bus. It connects by itself, again and again.
type End struct {
	opts  DialOptions
	link  *bus.Link
	stop  chan struct{}
	ended chan struct{}

	mu     sync.RWMutex
	conn   *nats.Conn      // nil: away
	gone   <-chan struct{} // closed when conn is
	subs   []*subscription
	closed bool
}

type subscription struct {
	*bus.Queue
	end            *End
	subject, group string
	nats           *nats.Subscription // of the connection that there is; with end.mu
}

// Dial makes an end, which connects in the background. The error is of the options. Close it.
func Dial(o DialOptions) (*End, error) {
	switch {
	case o.InProcess == nil && len(o.Addresses) == 0:
		return nil, errors.New("bus: an end needs the address of a server")
	case o.InProcess == nil && o.TLS == nil:
		return nil, errors.New("bus: an end needs TLS; there is no bus in clear")
	case o.Rights.Inbox == "":
		return nil, errors.New("bus: an end needs rights, with an inbox")
	}
	for _, a := range o.Addresses {
		if _, _, err := hostPort(a); err != nil {
			return nil, err
		}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	e := &End{opts: o, link: bus.NewLink(), stop: make(chan struct{}), ended: make(chan struct{})}
	go e.run()
	return e, nil
}

// run connects for as long as the end is open.
func (e *End) run() {
	defer close(e.ended)
	failures := 0
	for {
		began := time.Now()
		conn, gone, err := e.connect()
		if err == nil {
			e.opts.Log.Info("bus: connected", "server", conn.ConnectedAddr())
			select {
			case <-gone:
				e.opts.Log.Warn("bus: the connection broke", "error", conn.LastError())
			case <-e.stop:
			}
			e.detach(conn)
		} else if failures == 0 {
			e.opts.Log.Warn("bus: no connection; it is tried again and again", "error", err)
		}
		if failures++; time.Since(began) > stableTime {
			failures = 1
		}
		if !e.wait(failures) {
			return
		}
	}
}

func (e *End) wait(failures int) bool {
	bound := min(firstWait<<min(failures-1, 8), maxWait)
	t := time.NewTimer(rand.N(bound))
	defer t.Stop()
	select {
	case <-t.C:
	case <-e.stop:
	}
	select {
	case <-e.stop:
		return false
	default:
		return true
	}
}

// connect gives a connection on which all subscriptions stand, and what is closed when it ends. It never reconnects by
// itself: what it had still to send would then be sent late.
func (e *End) connect() (*nats.Conn, <-chan struct{}, error) {
	gone := make(chan struct{})
	o := nats.Options{
		Name: e.opts.Name, TLSConfig: e.opts.TLS, Secure: e.opts.InProcess == nil,
		Timeout: dialTime, PingInterval: endPing, MaxPingsOut: endPingsOut, FlusherTimeout: stuckTime,
		InboxPrefix: e.opts.Rights.Inbox, IgnoreDiscoveredServers: true, SubChanLen: 64,
		ClosedCB: func(*nats.Conn) { close(gone) },
		AsyncErrorCB: func(_ *nats.Conn, _ *nats.Subscription, err error) {
			e.opts.Log.Warn("bus: the server says", "error", err)
		},
	}
	if e.opts.InProcess != nil {
		o.TLSConfig, o.InProcessServer, o.Token = nil, e.opts.InProcess.nats, e.opts.InProcess.token
	} else {
		o.CustomDialer = dialer{&net.Dialer{Timeout: dialTime}, e.stop}
		for _, a := range e.opts.Addresses {
			o.Servers = append(o.Servers, "nats://"+a)
		}
	}
	if e.opts.User != "" {
		if err := nats.UserCredentials(e.opts.User)(&o); err != nil {
			return nil, nil, err
		}
	}
	conn, err := o.Connect()
	if err != nil {
		return nil, nil, err
	}
	if err := e.attach(conn, gone); err != nil {
		e.detach(conn)
		return nil, nil, err
	}
	return conn, gone, nil
}

// attach brings the subscriptions to a new connection, and says that the end is connected once the server has them.
func (e *End) attach(conn *nats.Conn, gone <-chan struct{}) error {
	e.mu.Lock()
	for _, s := range e.subs {
		if err := s.begin(conn); err != nil {
			e.mu.Unlock()
			return err
		}
	}
	e.conn, e.gone = conn, gone
	e.mu.Unlock()
	if err := e.flush(conn); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return bus.ErrClosed
	}
	e.link.Up()
	return nil
}

// flush waits until the server has what was sent, or the end is closed.
func (e *End) flush(conn *nats.Conn) error {
	ctx, end := context.WithTimeout(context.Background(), dialTime)
	defer end()
	defer until(ctx, e.stop, end)()
	return conn.FlushWithContext(ctx)
}

// until ends a context when a channel is closed. Call what it gives.
func until(ctx context.Context, closed <-chan struct{}, end context.CancelFunc) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-closed:
			end()
		case <-ctx.Done():
		}
	}()
	return func() {
		end()
		<-done
	}
}

func (e *End) detach(conn *nats.Conn) {
	e.mu.Lock()
	e.conn, e.gone = nil, nil
	for _, s := range e.subs {
		s.nats = nil
	}
	e.link.Down()
	e.mu.Unlock()
	conn.Close()
}

// begin subscribes on a connection. The library would drop the newest where a callback is slow, so ours only queues.
func (s *subscription) begin(conn *nats.Conn) error {
	got := func(m *nats.Msg) {
		msg := bus.Message{Subject: m.Subject, Data: m.Data}
		if m.Reply != "" && bus.MayAnswer(m.Subject, m.Reply) {
			msg.Respond = func(data []byte) error { return s.end.respond(conn, m.Reply, data) }
		}
		s.Push(msg)
	}
	var err error
	if s.group == "" {
		s.nats, err = conn.Subscribe(s.subject, got)
	} else {
		s.nats, err = conn.QueueSubscribe(s.subject, s.group, got)
	}
	return err
}

// respond answers over the connection on which the question came: on another one nobody waits.
func (e *End) respond(conn *nats.Conn, inbox string, data []byte) error {
	if len(data) > bus.MaxData {
		return fmt.Errorf("%w: %d bytes, and %d are the most", bus.ErrTooLarge, len(data), bus.MaxData)
	}
	return e.typed(conn.Publish(inbox, data))
}

// typed gives the library's errors the bus's types.
func (e *End) typed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrNoResponders):
		return bus.ErrNobody
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w for this server: %w", bus.ErrTooLarge, err)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected):
		e.mu.RLock()
		defer e.mu.RUnlock()
		if e.closed {
			return bus.ErrClosed
		}
		return bus.ErrAway
	}
	return fmt.Errorf("%w: %w", bus.ErrAway, err)
}

// connection is the one that there is.
func (e *End) connection() (*nats.Conn, <-chan struct{}, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	switch {
	case e.closed:
		return nil, nil, bus.ErrClosed
	case e.conn == nil:
		return nil, nil, bus.ErrAway
	}
	return e.conn, e.gone, nil
}

// check is what is wrong with a message, before anybody is asked.
func (e *End) check(subject string, data []byte) error {
	if err := e.opts.Rights.MayPublish(subject); err != nil {
		return err
	}
	if len(data) > bus.MaxData {
		return fmt.Errorf("%w: %d bytes, and %d are the most", bus.ErrTooLarge, len(data), bus.MaxData)
	}
	return nil
}

// Publish implements bus.Bus. Where the server takes nothing for 2 s, the connection is given up.
func (e *End) Publish(subject string, data []byte) error {
	if err := e.check(subject, data); err != nil {
		return err
	}
	conn, _, err := e.connection()
	if err != nil {
		return err
	}
	return e.typed(conn.Publish(subject, data))
}

// Request implements bus.Bus.
func (e *End) Request(ctx context.Context, subject string, data []byte) ([]byte, error) {
	if err := errors.Join(ctx.Err(), e.check(subject, data)); err != nil {
		return nil, err
	}
	conn, gone, err := e.connection()
	if err != nil {
		return nil, err
	}
	both, end := context.WithCancel(ctx)
	defer until(both, gone, end)()
	m, err := conn.RequestWithContext(both, subject, data)
	switch {
	case err == nil:
		return m.Data, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case both.Err() != nil:
		return nil, e.typed(nats.ErrConnectionClosed)
	}
	return nil, e.typed(err)
}

// Subscribe implements bus.Bus. While the end is connected, it returns once the server knows of it.
func (e *End) Subscribe(subject, group string, depth int, handle func(bus.Message)) (bus.Subscription, error) {
	if err := e.opts.Rights.MaySubscribe(subject); err != nil {
		return nil, err
	}
	s, conn, err := e.add(subject, group, depth, handle)
	if err != nil {
		return nil, err
	}
	if conn != nil && e.flush(conn) != nil {
		conn.Close() // it is tried again with another
	}
	return s, nil
}

func (e *End) add(subject, group string, depth int, handle func(bus.Message)) (*subscription, *nats.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, nil, bus.ErrClosed
	}
	if len(e.subs) >= bus.MaxSubscriptions {
		return nil, nil, fmt.Errorf("bus: an end has %d subscriptions at most", bus.MaxSubscriptions)
	}
	s := &subscription{Queue: bus.NewQueue(depth, handle), end: e, subject: subject, group: group}
	if e.conn != nil {
		if err := s.begin(e.conn); err != nil && !e.conn.IsClosed() {
			_ = s.Queue.Close() // has no error
			return nil, nil, fmt.Errorf("bus: subscribe to %s: %w", subject, err)
		}
	}
	e.subs = append(e.subs, s)
	return s, e.conn, nil
}

// Close implements bus.Subscription.
func (s *subscription) Close() error {
	s.end.mu.Lock()
	s.end.subs = slices.DeleteFunc(s.end.subs, func(o *subscription) bool { return o == s })
	if s.nats != nil {
		_ = s.nats.Unsubscribe() // where the connection is gone, so is it
		s.nats = nil
	}
	s.end.mu.Unlock()
	return s.Queue.Close()
}

// Connected implements bus.Bus.
func (e *End) Connected() (up, down <-chan struct{}) { return e.link.State() }

// Close implements bus.Bus. What was published before is sent where the server takes it at once.
func (e *End) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		<-e.ended
		return nil
	}
	e.closed = true
	subs := e.subs
	e.subs = nil
	e.mu.Unlock()
	close(e.stop)
	<-e.ended
	e.link.End()
	for _, s := range subs {
		_ = s.Queue.Close() // has no error
	}
	return nil
}

// dialer makes connections that end at the first write that fails: the library goes on with such a one until its pings
// find out. A try ends with the end.
type dialer struct {
	*net.Dialer
	stop <-chan struct{}
}

// Dial implements nats.CustomDialer.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	ctx, end := context.WithCancel(context.Background())
	defer until(ctx, d.stop, end)()
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return brittle{c}, nil
}

type brittle struct{ net.Conn }

// Write implements net.Conn.
func (b brittle) Write(p []byte) (int, error) {
	n, err := b.Conn.Write(p)
	if err != nil {
		_ = b.Conn.Close() // the error is told already
	}
	return n, err
}
