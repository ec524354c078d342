package refill

import (
	"slices"
	"time"
)

// Progress is how far a job is. Total is the sum of all that follows it up to Dropped.
type Progress struct {
	ID    uint64    `json:"job"`
	Site  string    `json:"site"`
	Began time.Time `json:"began"`
	// Ended is when nothing was left; nil before.
	Ended *time.Time `json:"ended,omitempty"`
	// Looking says that it is not yet known which answers the purge ended.
	Looking bool `json:"looking,omitempty"`
	Total   int  `json:"total"`
	Waiting int  `json:"waiting"`
	Running int  `json:"running"`
	// What became of the others: Stored were fetched and are stored, Fresh were so already, of NotStored the
	// answer may not be stored, Failed had an error or an answer of 400 and more, NoRoom gave up because the origins had
	// none to spare, Same were on their way for another job, Dropped found the queue full.
	Stored    int `json:"stored"`
	Fresh     int `json:"fresh"`
	NotStored int `json:"notStored"`
	Failed    int `json:"failed"`
	NoRoom    int `json:"noRoom"`
	Same      int `json:"same"`
	Dropped   int `json:"dropped"`
	// Errors are the first few, each with its URL.
	Errors []string `json:"errors,omitempty"`
}

// maxErrors bounds the errors that a job remembers.
const maxErrors = 10

// count notes how one target ended. The queue's lock is held.
func (p *Progress) count(r Result) {
	switch r {
	case Stored:
		p.Stored++
	case Fresh:
		p.Fresh++
	case NotStored:
		p.NotStored++
	case NoRoom:
		p.NoRoom++
	default:
		p.Failed++
	}
}

func (p *Progress) fail(target *Target, why string) {
	if len(p.Errors) < maxErrors && why != "" {
		p.Errors = append(p.Errors, target.URL+": "+why)
	}
}

// open makes a job. The lock is held.
func (q *Queue) open(site string, looking bool) *Progress {
	q.last++
	p := &Progress{ID: q.last, Site: site, Began: time.Now(), Looking: looking}
	q.jobs = append(q.jobs, p)
	if len(q.jobs) > maxJobs {
		// The oldest one that has ended goes, and its progress with it; else the oldest.
		i := max(slices.IndexFunc(q.jobs, func(p *Progress) bool { return p.Ended != nil }), 0)
		q.jobs = slices.Delete(q.jobs, i, i+1)
	}
	return p
}

// closeIfDone notes the end of a job. The lock is held.
func (p *Progress) closeIfDone() {
	if p.Ended == nil && !p.Looking && p.Waiting == 0 && p.Running == 0 {
		now := time.Now()
		p.Ended = &now
	}
}

// copied is the progress for others.
func (p *Progress) copied() Progress {
	c := *p
	c.Errors = slices.Clone(p.Errors)
	return c
}

// Job tells how far a job is; false when it is not known (any more).
func (q *Queue) Job(id uint64) (Progress, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.jobs {
		if p.ID == id {
			return p.copied(), true
		}
	}
	return Progress{}, false
}

// Jobs lists the jobs that are known, the newest first; of one site, or of all when it is empty.
func (q *Queue) Jobs(site string) []Progress {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := []Progress{}
	for _, p := range slices.Backward(q.jobs) {
		if site == "" || site == p.Site {
			out = append(out, p.copied())
		}
	}
	return out
}
