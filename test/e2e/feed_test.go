package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAFeedSurvivesKillNine kills the edge in the middle of a feed: what the command says was taken is in the
// purge log of the next process, and sending all of it again takes the rest.
func TestAFeedSurvivesKillNine(t *testing.T) {
	const events = 60_000
	addr := ports(t, 1)[0]
	back := origin(t, func(w http.ResponseWriter, _ *http.Request) {})
	dir, data := t.TempDir(), t.TempDir()
	file, feed := filepath.Join(dir, "edge.yaml"), filepath.Join(dir, "events.ndjson")
	write(t, file, fmt.Sprintf(cachedShop, addr, back))
	var b strings.Builder
	for i := range events {
		fmt.Fprintf(&b, "{\"sku\":\"%d\",\"version\":1}\n", i)
	}
	write(t, feed, b.String())
	env := "RELAIS_DATA=" + data
	taken := regexp.MustCompile(`all taken up to line (\d+)`)
	p, _ := serve(t, addr, file, env)
	known := func() int {
		_, out := run(t, []string{env}, "cache", "stats", "-o", "json")
		var st struct{ PurgeLog struct{ Entries int } }
		if err := json.Unmarshal([]byte(out), &st); err != nil {
			return -1 // it does not answer
		}
		return st.PurgeLog.Entries
	}
	most := 0
	for round := range 3 {
		cmd := exec.CommandContext(t.Context(), binary(t), "cache", "feed", "--site", "s", "-f", feed, "--retry", "0s")
		cmd.Env = append(cmd.Environ(), env)
		out := new(strings.Builder)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a second batch is taken, so that the first was said to be", func() bool { return known() > most+1000 })
		time.Sleep(time.Duration(round) * 37 * time.Millisecond) // anywhere in a batch
		signal(t, p, syscall.SIGKILL)
		err := cmd.Wait()
		m := taken.FindStringSubmatch(out.String())
		if err == nil || m == nil {
			t.Fatalf("the feed ended with %v: %s", err, out)
		}
		n, _ := strconv.Atoi(m[1])
		p, _ = serve(t, addr, file, env)
		got := -1
		eventually(t, "the next process answers", func() bool { got = known(); return got >= 0 })
		if got-most < n || n == 0 { // nothing is compacted yet
			t.Errorf("round %d: %d events were said to be taken, the next process has %d purges in its log", round, n, got)
		}
		most = max(most, got)
		t.Logf("round %d: taken %d, known %d", round, n, got)
	}
	code, out := run(t, []string{env}, "cache", "feed", "--site", "s", "-f", feed)
	if code != 0 || !strings.Contains(out, fmt.Sprintf("%d events: %d purged", events, events)) {
		t.Errorf("code %d: %s", code, out)
	}
	t.Log(out)
	if got := known(); got < events {
		t.Errorf("%d purges are in the log", got)
	}
}
