package bus

import (
	"errors"
	"fmt"
	"strings"
)

// maxSubject bounds a subject, in bytes.
const maxSubject = 255

// ErrSubject: what was given is no subject.
var ErrSubject = errors.New("bus: not a subject")

// Inboxes is the first word of the subjects on which answers come.
const Inboxes = "_INBOX"

// Rights say which subjects an end may use. Ends refuse by themselves what they may not; servers do so too, by what they
// know of the peer.
type Rights struct {
	Publish   []string // subjects, with * and >
	Subscribe []string
	Inbox     string // subject below which answers come to this end, and to no other
}

// PopRights are a PoP's.
func PopRights(pop string) Rights {
	return Rights{
		Publish:   []string{Up(pop, ">"), Peer(pop, ">")},
		Subscribe: []string{Down(pop, ">"), "all.>", "peer.>"},
		Inbox:     Inboxes + ".pop." + pop,
	}
}

// ControlRights are a control plane's: it may use all subjects.
func ControlRights() Rights {
	return Rights{Publish: []string{">"}, Subscribe: []string{">"}, Inbox: Inboxes + ".control"}
}

// MayPublish says whether one may publish to a subject: nil, ErrSubject or ErrDenied.
func (r Rights) MayPublish(subject string) error {
	if !valid(subject, false) {
		return fmt.Errorf("%w to publish to: %.80q", ErrSubject, subject)
	}
	return within(r.Publish, subject)
}

// MaySubscribe says whether one may subscribe to a subject, which may have wildcards: nil, ErrSubject or ErrDenied.
func (r Rights) MaySubscribe(subject string) error {
	if !valid(subject, true) {
		return fmt.Errorf("%w to subscribe to: %.80q", ErrSubject, subject)
	}
	return within(r.Subscribe, subject)
}

func within(allowed []string, subject string) error {
	for _, a := range allowed {
		if Matches(a, subject) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s", ErrDenied, subject)
}

// Matches says whether all that subject means is among what pattern means.
func Matches(pattern, subject string) bool {
	for {
		p, pRest, pMore := strings.Cut(pattern, ".")
		s, sRest, sMore := strings.Cut(subject, ".")
		switch {
		case p == ">":
			return true
		case s == ">" || p != "*" && p != s:
			return false
		case !pMore || !sMore:
			return pMore == sMore
		}
		pattern, subject = pRest, sRest
	}
}

func valid(subject string, wild bool) bool {
	if subject == "" || len(subject) > maxSubject {
		return false
	}
	for rest, more := subject, true; more; {
		var word string
		word, rest, more = strings.Cut(rest, ".")
		switch {
		case word == "" || word == ">" && more:
			return false
		case word == "*" || word == ">":
			if !wild {
				return false
			}
		case strings.ContainsFunc(word, func(c rune) bool { return c <= ' ' || c > '~' || c == '*' || c == '>' }):
			return false
		}
	}
	return true
}

// MayAnswer says whether what came with a subject may be answered there. The one who asks chooses where: an answer is only
// ever sent to an inbox, and to a PoP's own where the subject is a PoP's, so that nobody has others say for him what he
// may not.
func MayAnswer(subject, inbox string) bool {
	words := strings.SplitN(subject, ".", 3)
	if len(words) == 3 && (words[0] == "up" || words[0] == "peer") {
		return strings.HasPrefix(inbox, PopRights(words[1]).Inbox+".")
	}
	return strings.HasPrefix(inbox, Inboxes+".")
}
