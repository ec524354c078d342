package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/forecast"
)

const forecastDocuments = `
apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec: {address: "127.0.0.1:0"}
---
apiVersion: relais/v1
kind: Site
metadata: {name: shop, organization: demo}
spec:
  hostnames: ["*"]
  routes: [{name: all, pool: shop}]
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: shop, organization: demo}
spec:
  tiers:
    - name: home
      price: 1
      capacity: {inFlight: 40}
      origins: [{address: "10.0.1.10:80", zone: fra}]
    - name: overflow
      price: 4
      capacity: {inFlight: 8}
      origins: [{address: "10.9.0.10:80"}]
  health: {connect: true, interval: 1s}
`

// forecastBed writes documents, and an access log of two minutes with 200 requests a second of 40 ms at home.
func forecastBed(t *testing.T) (docs, log string) {
	t.Helper()
	dir := t.TempDir()
	docs, log = filepath.Join(dir, "shop.yaml"), filepath.Join(dir, "access.log")
	var b bytes.Buffer
	start := time.Date(2026, 11, 27, 18, 0, 0, 0, time.UTC)
	for i := range 200 * 120 {
		class := ""
		if i%10 == 0 {
			class = `"visitor":"protected",`
		}
		fmt.Fprintf(&b, `{"time":"%s","status":200,"ms":%d.000,"site":"demo/shop",%s"pool":"shop","tier":"home"}`+"\n",
			start.Add(time.Duration(i)*5*time.Millisecond).Format("2006-01-02T15:04:05.000Z"), 20+i%40, class)
	}
	for name, text := range map[string][]byte{docs: []byte(forecastDocuments), log: b.Bytes()} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return docs, log
}

func runCommand(args ...string) (out string, code int, err error) {
	var b bytes.Buffer
	cmd := root(&b, &b)
	cmd.SetArgs(args)
	if err = cmd.Execute(); err != nil {
		code = exitUsage
		var e *exitError
		if errors.As(err, &e) {
			code = e.code
		}
	}
	return b.String(), code, err
}

func TestForecastSaysWhoIsRefusedAndExitsWithThree(t *testing.T) {
	docs, log := forecastBed(t)
	out, code, err := runCommand("forecast", "-f", docs, "--access-log", log)
	if code != 0 || !strings.Contains(out, "simulation") || !strings.Contains(out, "orders kept: yes; nobody refused") {
		t.Errorf("as recorded: %d, %v\n%s", code, err, out)
	}
	out, code, _ = runCommand("forecast", "-f", docs, "--access-log", log, "--fail", "home", "--rate", "x1.5")
	for _, want := range []string{"what if: home fails; rate x1.5", "→ failed", "unhealthy", "refused, as no tier has room: anonymous", "price an hour", "orders kept: "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if code != exitFull {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

func TestForecastAsJSON(t *testing.T) {
	docs, log := forecastBed(t)
	out, _, err := runCommand("forecast", "-o", "json", "-f", docs, "--access-log", log, "--rate", "300/s", "--mean")
	var f forecast.Forecast
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err != nil || !f.Simulation || !f.Fits || len(f.Pools) != 1 || f.Pools[0].Key != "demo/shop" || f.Log.Lines != 24_000 {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestForecastRefusesNonsense(t *testing.T) {
	docs, log := forecastBed(t)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--fail", "hom", "--access-log", log}, exitUsage, "there are tiers shop/home, shop/overflow; zones fra;"},
		{[]string{"--rate", "1.5", "--access-log", log}, exitUsage, "such as x1.5"},
		{[]string{"--capacity", "home", "--access-log", log}, exitUsage, "such as home=200"},
		{[]string{"--from", "yesterday", "--access-log", log}, exitUsage, "write a time such as"},
		{[]string{"--from", "2026-11-27 19:00", "--to", "2026-11-27 18:00", "--access-log", log}, exitUsage, "is not before"},
		{[]string{"--window", "-1h", "--access-log", log}, exitUsage, "above 0"},
		{[]string{"-o", "xml", "--access-log", log}, exitUsage, "text or json"},
		{[]string{"--access-log", log + ".none"}, exitFailed, "no such file"},
		{[]string{"--access-log", docs}, exitFailed, "no load is recorded"},
		{[]string{"--from", "2026-12-01 18:00", "--access-log", log}, exitFailed, "no load is recorded"},
		{[]string{"--data", t.TempDir()}, exitFailed, "--access-log"},
	} {
		out, code, err := runCommand(append([]string{"forecast", "-f", docs}, c.args...)...)
		if err == nil || code != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %d, %v\n%s", c.args, code, err, out)
		}
	}
}
