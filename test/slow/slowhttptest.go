package slow

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Command is the slowhttptest command for an attack: bytes every five seconds, and as many
// new connections a second as it may have at all.
func Command(a Attack, length time.Duration) []string {
	args := []string{
		"slowhttptest", "-c", strconv.Itoa(a.Connections), "-r", strconv.Itoa(a.Connections), "-p", "5",
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

// Held counts the connections that the program behind a port of 127.0.0.1 has accepted and that are open,
// and those that wait in the system to be accepted.
func Held(port int) (accepted, waiting int, err error) {
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, 0, err
	}
	accepted, waiting = held(b, port)
	return accepted, waiting, nil
}

// held reads what proc_net_tcp(5) shows: local address, state and inode, which is 0 before accept.
func held(b []byte, port int) (accepted, waiting int) {
	const established = "01"
	local := fmt.Sprintf(":%04X", port)
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		switch {
		case len(f) < 10 || !bytes.HasSuffix(f[1], []byte(local)) || string(f[3]) != established:
		case string(f[9]) == "0":
			waiting++
		default:
			accepted++
		}
	}
	return accepted, waiting
}
