package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// TopicRevision is the topic of the messages that the store writes by itself: an organization has a new revision.
const TopicRevision = "revision"

// poll is how often a store looks for messages of processes that it did not hear from.
const poll = 500 * time.Millisecond

// Message is a row of the outbox: it was committed together with what it tells of.
type Message struct {
	ID           int64 // 1, 2, 3 ... in the order of commits, without gaps
	Position     int64 // of the change
	Topic        string
	Organization string
	Revision     int64 // of a message of TopicRevision
	Time         time.Time
	Payload      []byte // JSON; nil with TopicRevision
}

// Subscribe makes a consumer known: from then on messages are kept for it. One that is known stays where it is; a new one
// begins with the next message, so it subscribes first and reads the documents then.
func (s *Store) Subscribe(ctx context.Context, consumer string) error {
	if consumer == "" {
		return fmt.Errorf("%w: a consumer has a name", ErrInvalid)
	}
	if err := checkText("consumer", consumer, maxPart); err != nil {
		return err
	}
	_, err := s.Update(ctx, Change{Author: "consumer " + consumer}, func(tx *Tx) error {
		var n, known int64
		row := tx.q.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(CASE WHEN consumer = $1 THEN 1 ELSE 0 END), 0) FROM consumers", consumer)
		if err := row.Scan(&n, &known); err != nil {
			return s.fail(ctx, "read consumers", err)
		}
		if known == 1 {
			return nil
		}
		if n >= s.limits.Consumers {
			return &LimitError{"consumers of the outbox", n + 1, s.limits.Consumers}
		}
		_, err := tx.q.ExecContext(ctx, "INSERT INTO consumers (consumer, acknowledged, time) VALUES ($1, $2, $3)", consumer, tx.head.message, tx.now.UnixMicro())
		return s.fail(ctx, "subscribe", errors.Join(err, tx.keep()))
	})
	return err
}

// Unsubscribe forgets a consumer: nothing is kept for it any more.
func (s *Store) Unsubscribe(ctx context.Context, consumer string) error {
	_, err := s.Update(ctx, Change{Author: "consumer " + consumer}, func(tx *Tx) error {
		_, err := tx.q.ExecContext(ctx, "DELETE FROM consumers WHERE consumer = $1", consumer)
		return s.fail(ctx, "unsubscribe", errors.Join(err, tx.keep()))
	})
	return err
}

// Messages reads what the consumer has not acknowledged, in order, up to limit. What is read and not acknowledged comes
// again. LostError says that the consumer stayed away for too long.
func (s *Store) Messages(ctx context.Context, consumer string, limit int) (list []Message, err error) {
	limit = s.limits.page(limit)
	err = s.View(ctx, func(r *Reader) error {
		last, err := r.acknowledged(ctx, consumer)
		if err != nil {
			return err
		}
		list, err = query(ctx, r, "read messages", scanMessage, `SELECT id, position, topic, organization, revision, time, payload
FROM outbox WHERE id > $1 ORDER BY id LIMIT $2`, last, limit)
		if err != nil {
			return err
		}
		var head int64
		if err := r.q.QueryRowContext(ctx, "SELECT message FROM head WHERE one = 1").Scan(&head); err != nil {
			return s.fail(ctx, "read messages", err)
		}
		switch {
		case len(list) > 0 && list[0].ID != last+1:
			return &LostError{consumer, last, list[0].ID}
		case len(list) == 0 && head != last:
			return &LostError{consumer, last, head + 1}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func scanMessage(rows *sql.Rows) (m Message, err error) {
	var us int64
	err = rows.Scan(&m.ID, &m.Position, &m.Topic, &m.Organization, &m.Revision, &us, &m.Payload)
	m.Time = fromMicros(us)
	return m, err
}

func (r *Reader) acknowledged(ctx context.Context, consumer string) (last int64, err error) {
	err = r.q.QueryRowContext(ctx, "SELECT acknowledged FROM consumers WHERE consumer = $1", consumer).Scan(&last)
	if isNoRows(err) {
		return 0, fmt.Errorf("consumer %s: %w", consumer, ErrNotFound)
	}
	return last, r.store.fail(ctx, "read the consumer "+consumer, err)
}

// Acknowledge says that a consumer is done with all messages up to id. It never goes back.
func (s *Store) Acknowledge(ctx context.Context, consumer string, id int64) error {
	_, err := s.Update(ctx, Change{Author: "consumer " + consumer}, func(tx *Tx) error {
		last, err := tx.acknowledged(ctx, consumer)
		if err != nil || id <= last {
			return err
		}
		if id > tx.head.message {
			return fmt.Errorf("%w: message %d was never written, the last is %d", ErrInvalid, id, tx.head.message)
		}
		_, err = tx.q.ExecContext(ctx, "UPDATE consumers SET acknowledged = $1, time = $2 WHERE consumer = $3", id, tx.now.UnixMicro(), consumer)
		return s.fail(ctx, "acknowledge", errors.Join(err, tx.keep()))
	})
	return err
}

// Skip puts a consumer behind the newest message and gives its number: what was lost is read from the documents instead.
func (s *Store) Skip(ctx context.Context, consumer string) (id int64, err error) {
	_, err = s.Update(ctx, Change{Author: "consumer " + consumer}, func(tx *Tx) error {
		if _, err := tx.acknowledged(ctx, consumer); err != nil {
			return err
		}
		id = tx.head.message
		_, err := tx.q.ExecContext(ctx, "UPDATE consumers SET acknowledged = $1, time = $2 WHERE consumer = $3", id, tx.now.UnixMicro(), consumer)
		return s.fail(ctx, "skip", errors.Join(err, tx.keep()))
	})
	return id, err
}

// Sweep removes the messages that every consumer acknowledged, and the oldest beyond Limits.Messages whoever waits for
// them. The leader calls it now and then. It gives the number of messages that went.
func (s *Store) Sweep(ctx context.Context) (gone int64, err error) {
	_, err = s.Update(ctx, Change{Author: "sweep"}, func(tx *Tx) error {
		var least sql.NullInt64
		if err := tx.q.QueryRowContext(ctx, "SELECT min(acknowledged) FROM consumers").Scan(&least); err != nil {
			return s.fail(ctx, "sweep the outbox", err)
		}
		upTo := tx.head.message // nobody listens: nothing is kept
		if least.Valid {
			upTo = max(least.Int64, tx.head.message-s.limits.Messages)
		}
		res, err := tx.q.ExecContext(ctx, "DELETE FROM outbox WHERE id <= $1", upTo)
		if err == nil {
			gone, err = res.RowsAffected()
		}
		return s.fail(ctx, "sweep the outbox", errors.Join(err, tx.keep()))
	})
	return gone, err
}

// Wait returns when there is a message after the consumer's last acknowledged one, or with the error of ctx. A commit of
// this process is heard at once, one of another over PostgreSQL at once too, and otherwise within half a second.
func (s *Store) Wait(ctx context.Context, consumer string) error {
	if s.engine.listen != nil {
		s.listen.Do(s.startListening)
	}
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		waits, err := s.waits(ctx, consumer)
		if err != nil || waits {
			return err
		}
		look := time.NewTimer(poll)
		select {
		case <-changed:
		case <-look.C:
		case <-s.life:
			look.Stop()
			return fmt.Errorf("%w: it was closed", ErrUnavailable)
		case <-ctx.Done():
			look.Stop()
			return context.Cause(ctx)
		}
		look.Stop()
	}
}

func (s *Store) waits(ctx context.Context, consumer string) (waits bool, err error) {
	var last, head int64
	row := s.engine.reads.QueryRowContext(ctx, "SELECT acknowledged, message FROM consumers, head WHERE consumer = $1", consumer)
	err = row.Scan(&last, &head)
	if isNoRows(err) {
		return false, fmt.Errorf("consumer %s: %w", consumer, ErrNotFound)
	}
	return head > last, s.fail(ctx, "wait for messages", err)
}

func (s *Store) startListening() {
	ctx, cancel := context.WithCancel(context.Background())
	s.running.Go(func() {
		defer cancel()
		s.engine.listen(ctx, s.broadcast)
	})
	s.running.Go(func() {
		<-s.life
		cancel()
	})
}
