package handover

import (
	"net"
	"os"
	"strconv"
)

// What systemd is told (sd_notify). Several go in one text, one a line.
const (
	StateReady    = "READY=1"
	StateStopping = "STOPPING=1"
)

// StateMainPID says that another process is the service now.
func StateMainPID(pid int) string { return "MAINPID=" + strconv.Itoa(pid) }

// Notify tells the service manager how this process is. Without one it does nothing.
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"}) // @ is an abstract name here as there
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}
