//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64

package packet

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// synCookies is the kernel's setting: 0 none, 1 when a listener's queue is full, 2 always.
const synCookies = "/proc/sys/net/ipv4/tcp_syncookies"

// calm is how long no cookie was sent until the kernel's setting is as it was: also the longest that
// somebody who got one may take for an answer.
const calm = time.Minute

// cookies is whether the program answers SYNs in the kernel's place. The kernel takes the ACK for such
// an answer only while it sends cookies itself; so before the first one it is told to, and each listener
// goes on getting some SYNs.
type cookies struct {
	on      bool
	was     string // the setting before ours
	last    time.Time
	pressed uint64
	sent    uint64
	err     error // why the program may not answer
}

// look is called some times a second with how many SYNs were more than a listener should get, and
// how many were answered.
func (c *cookies) look(now time.Time, pressed, sent uint64) {
	more := pressed != c.pressed || sent != c.sent
	c.pressed, c.sent = pressed, sent
	switch {
	case more && !c.on:
		if c.err = c.begin(); c.err == nil {
			c.on, c.last = true, now
		}
	case more:
		c.last = now
	case c.on && now.Sub(c.last) > calm:
		c.end()
	}
}

func (c *cookies) begin() error {
	b, err := os.ReadFile(synCookies)
	if err != nil {
		return fmt.Errorf("net.ipv4.tcp_syncookies cannot be read: %w", err)
	}
	if c.was = strings.TrimSpace(string(b)); c.was == "2" {
		return nil
	}
	if err := os.WriteFile(synCookies, []byte("2"), 0); err != nil {
		return fmt.Errorf("net.ipv4.tcp_syncookies is %s and cannot be set to 2: %w", c.was, err)
	}
	return nil
}

// end has the kernel do as before.
func (c *cookies) end() {
	if c.on && c.was != "2" {
		_ = os.WriteFile(synCookies, []byte(c.was), 0) // it stays at 2, which is safe
	}
	c.on = false
}

func (c *cookies) String() string {
	switch {
	case c.err != nil:
		return "kernel"
	case c.on:
		return "sent"
	}
	return "ready"
}
