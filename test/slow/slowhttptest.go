package slow

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"
)

// Command is the slowhttptest command for an attack, with its lines written at once: bytes every five seconds, a thousand new
// connections a second.
func Command(a Attack, length time.Duration) []string {
	args := []string{
		"stdbuf", "-oL", "slowhttptest", "-c", strconv.Itoa(a.Connections), "-r", "1000", "-p", "5",
		"-l", strconv.Itoa(int(length.Seconds())),
	}
	url := "http://" + a.Target + "/"
	switch a.Mode {
	case Headers:
		args = append(args, "-H", "-i", "5", "-x", "24", "-u", url)
	case Body:
		args = append(args, "-B", "-i", "5", "-s", "8192", "-x", "10", "-u", url)
	case Read:
		args = append(args, "-X", "-w", "10", "-y", "20", "-n", "5", "-z", "32", "-k", "3", "-u", url+"big")
	}
	return args
}

// State is what slowhttptest said of its connections.
type State struct{ Most, Connected, Closed int }

// ReadState reads the output of slowhttptest: the last figures, and the most connections at once.
func ReadState(path string) (s State, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	b = regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAll(b, nil)
	lines := regexp.MustCompile(`(?m)^(connected|closed):\s+(\d+)`).FindAllSubmatch(b, -1)
	if len(lines) == 0 {
		return s, fmt.Errorf("%s holds no figures of slowhttptest", path)
	}
	for _, m := range lines {
		n, err := strconv.Atoi(string(m[2]))
		if err != nil {
			return s, err
		}
		if string(m[1]) == "closed" {
			s.Closed = n
			continue
		}
		s.Connected = n
		s.Most = max(s.Most, n)
	}
	return s, nil
}
