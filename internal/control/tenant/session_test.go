package tenant_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
)

func (b *bed) open(a tenant.Actor) (text string, s tenant.Session) {
	b.t.Helper()
	text, s, err := b.OpenSession(b.t.Context(), a, tenant.SessionRequest{Source: from("192.0.2.1"), Agent: "Browser\x00/1\n"})
	b.must(err)
	return text, s
}

func (b *bed) ended(text string) {
	b.t.Helper()
	_, err := b.ResumeSession(b.t.Context(), text)
	b.is(err, auth.ErrToken)
}

func TestASessionIsItsUserUntilItEnds(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	sam := b.user("shop", "sam", tenant.RoleEditor)
	before, err := b.store.List(ctx, store.Query{})
	b.must(err)
	text, s := b.open(sam)
	a, err := b.ResumeSession(ctx, text)
	b.must(err)
	if a.Organization != "shop" || a.Login != "sam" || a.Token != nil || a.Session != s.ID || s.Agent != "Browser/1" || !b.may(a, "write", "Site", "shop", "") {
		t.Errorf("%+v, %+v", a, s)
	}
	_, err = b.Authenticate(ctx, text)
	b.is(err, auth.ErrToken) // it is no token
	for range 3 {            // used, it lasts
		b.pass(50 * time.Minute)
		_, err = b.ResumeSession(ctx, text)
		b.must(err)
	}
	b.pass(time.Hour)
	b.ended(text)
	// Used all day, it ends after 12 hours.
	text, _ = b.open(sam)
	for range 15 {
		b.pass(48 * time.Minute)
		if _, err = b.ResumeSession(ctx, text); err != nil {
			break
		}
	}
	b.is(err, auth.ErrToken)
	after, err := b.store.List(ctx, store.Query{})
	b.must(err)
	if len(after.Documents) != len(before.Documents) || before.Documents[0].Revision != after.Documents[0].Revision {
		t.Error("sessions are documents")
	}
	// What is not one.
	text, _ = b.open(sam)
	tampered := []byte(text)
	tampered[len(tampered)-12] ^= 1
	b.ended(string(tampered))
	forged := auth.NewToken("shop")
	forged.ID = strings.Split(text, "_")[2]
	b.ended(forged.String())
	forged = auth.NewToken("cafe")
	b.ended(forged.String())
	b.ended("")
	token := tenant.Actor{Organization: "shop", Login: "sam", Token: &tenant.Grant{}}
	_, _, err = b.OpenSession(ctx, token, tenant.SessionRequest{})
	b.denied(err)
	b.must(b.CreateUser(ctx, b.op, "shop", "robot", "", true))
	for _, login := range []string{"robot", "nobody"} {
		_, _, err = b.OpenSession(ctx, tenant.Actor{Organization: "shop", Login: login}, tenant.SessionRequest{})
		b.is(err, tenant.ErrLogin)
	}
	b.whole()
}

func TestSessionsAreListedEndedAndBounded(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	sam, eve := b.user("shop", "sam", tenant.RoleEditor), b.user("shop", "eve", tenant.RoleAdmin)
	kim := b.user("cafe", "kim", tenant.RoleAdmin)
	var texts []string
	for range 16 {
		text, _ := b.open(sam)
		texts = append(texts, text)
		b.pass(time.Second)
	}
	b.pass(6 * time.Minute)
	_, err := b.ResumeSession(ctx, texts[0]) // the oldest was used last
	b.must(err)
	last, s := b.open(sam)
	list, err := b.Sessions(ctx, sam, "shop", "sam")
	b.must(err)
	if len(list) != 16 || !slices.ContainsFunc(list, func(x tenant.Session) bool { return x.ID == s.ID }) {
		t.Errorf("%d sessions", len(list))
	}
	b.ended(texts[1])
	_, err = b.ResumeSession(ctx, texts[0])
	b.must(err)
	// Who manages him sees and ends them; who does not, not.
	for _, a := range []tenant.Actor{kim, sam} {
		_, err = b.Sessions(ctx, a, "shop", "eve")
		b.denied(err)
		_, err = b.EndSessions(ctx, a, "shop", "eve")
		b.denied(err)
	}
	_, err = b.Sessions(ctx, tenant.Actor{Organization: "shop", Login: "sam", Token: &tenant.Grant{}}, "shop", "sam")
	b.denied(err)
	b.denied(b.EndSession(ctx, kim, "shop", s.ID))
	b.denied(b.EndSession(ctx, sam, "shop", "nothing"))
	if list, err = b.Sessions(ctx, eve, "shop", "sam"); err != nil || len(list) != 16 {
		t.Errorf("the admin sees %d, %v", len(list), err)
	}
	b.must(b.EndSession(ctx, eve, "shop", s.ID))
	b.ended(last)
	me, err := b.ResumeSession(ctx, texts[0])
	b.must(err)
	b.must(b.EndSession(ctx, sam, "shop", list[0].ID))
	n, err := b.EndSessions(ctx, me, "shop", "sam")
	b.must(err)
	if n < 13 {
		t.Errorf("%d ended", n)
	}
	b.ended(texts[9])
	_, err = b.ResumeSession(ctx, texts[0])
	b.must(err)
	b.whole()
}

func TestSessionsEndWithWhatTheyRestOn(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	sam := b.user("shop", "sam", "")
	one, _ := b.open(sam)
	two, _ := b.open(sam)
	me, err := b.ResumeSession(ctx, one)
	b.must(err)
	b.must(b.SetPassword(ctx, me, "shop", "sam", password, "another long password"))
	_, err = b.ResumeSession(ctx, one) // he did it from there
	b.must(err)
	b.ended(two)
	b.must(b.SetPassword(ctx, b.op, "shop", "sam", "", "a third long password"))
	b.ended(one)
	one, _ = b.open(sam)
	b.must(b.SetDisabled(ctx, b.op, "shop", "sam", true))
	b.ended(one)
	b.must(b.SetDisabled(ctx, b.op, "shop", "sam", false))
	b.ended(one)
	one, _ = b.open(sam)
	b.must(b.DeleteUser(ctx, b.op, "shop", "sam"))
	b.user("shop", "sam", "")
	b.ended(one) // whoever has the login now
	one, _ = b.open(sam)
	b.must(b.DeleteOrganization(ctx, b.op, "shop"))
	b.ended(one)
	b.whole()
}

func TestInvitations(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	eve, sam := b.user("shop", "eve", tenant.RoleAdmin), b.user("shop", "sam", tenant.RoleEditor)
	link, err := b.Invite(ctx, eve, "shop", "new", 0)
	b.must(err)
	who, reset, err := b.Invited(ctx, link)
	if err != nil || who.Login != "new" || who.Organization != "shop" || reset {
		t.Errorf("%+v, %v, %v", who, reset, err)
	}
	_, err = b.login(tenant.Credentials{Organization: "shop", Login: "new"})
	b.is(err, tenant.ErrLogin)
	_, err = b.Redeem(ctx, link, "short")
	b.is(err, auth.ErrPassword)
	results := make(chan error, 5)
	for i := range 5 {
		go func() {
			_, err := b.Redeem(ctx, link, fmt.Sprint("password of try ", i))
			results <- err
		}()
	}
	in := 0
	for range 5 {
		if err := <-results; err == nil {
			in++
		} else if !errors.Is(err, tenant.ErrInvitation) {
			t.Error(err)
		}
	}
	if in != 1 {
		t.Errorf("one link set %d passwords", in)
	}
	tried := 0
	for i := range 5 {
		if _, err := b.login(tenant.Credentials{Organization: "shop", Login: "new", Password: fmt.Sprint("password of try ", i), Source: from(fmt.Sprintf("198.51.%d.1", i))}); err == nil {
			tried++
		}
	}
	if tried != 1 {
		t.Errorf("%d passwords let in", tried)
	}
	_, err = b.Invite(ctx, eve, "shop", "new", 0)
	b.is(err, tenant.ErrInUse)
	_, err = b.Invite(ctx, sam, "shop", "other", 0)
	b.denied(err)
	for _, life := range []time.Duration{-1, 8 * 24 * time.Hour} {
		_, err = b.Invite(ctx, eve, "shop", "other", life)
		b.is(err, tenant.ErrInvalid)
	}
	_, err = b.Invite(ctx, eve, "shop", "Other!", 0)
	b.is(err, tenant.ErrInvalid)
	// A second link ends the first, and time ends the second.
	first, err := b.Invite(ctx, eve, "shop", "late", time.Hour)
	b.must(err)
	second, err := b.Invite(ctx, eve, "shop", "late", time.Hour)
	b.must(err)
	_, _, err = b.Invited(ctx, first)
	b.is(err, tenant.ErrInvitation)
	b.pass(time.Hour)
	_, err = b.Redeem(ctx, second, "a long enough password")
	b.is(err, tenant.ErrInvitation)
	for _, text := range []string{"", "x", first + "x", auth.NewToken("shop").String(), auth.NewToken("nowhere").String()} {
		_, err = b.Redeem(ctx, text, "a long enough password")
		b.is(err, tenant.ErrInvitation)
	}
	if used, _, err := b.Usage(ctx, b.op, "shop", tenant.MetricUsers); err != nil || used != 4 {
		t.Errorf("%d users are counted, %v", used, err)
	}
	b.whole()
}

func TestResets(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	eve, sam := b.user("shop", "eve", tenant.RoleAdmin), b.user("shop", "sam", "")
	uri, err := b.BeginTOTP(ctx, sam)
	b.must(err)
	_, err = b.ConfirmTOTP(ctx, sam, authenticator(t, uri, b.clock()))
	b.must(err)
	session, _ := b.open(sam)
	link, err := b.OfferReset(ctx, eve, "shop", "sam", 0)
	b.must(err)
	b.pass(time.Minute)
	_, err = b.login(tenant.Credentials{Organization: "shop", Login: "sam", Password: password, Code: authenticator(t, uri, b.clock())})
	b.must(err) // the former password holds until then
	const next = "another long password"
	_, err = b.Redeem(ctx, link, next)
	b.must(err)
	b.ended(session)
	_, err = b.Redeem(ctx, link, next)
	b.is(err, tenant.ErrInvitation)
	_, err = b.login(tenant.Credentials{Organization: "shop", Login: "sam", Password: next})
	b.is(err, tenant.ErrCodeWanted) // who steals the link has not got the second factor
	b.pass(time.Minute)
	_, err = b.login(tenant.Credentials{Organization: "shop", Login: "sam", Password: next, Code: authenticator(t, uri, b.clock())})
	b.must(err)
	_, err = b.OfferReset(ctx, sam, "shop", "eve", 0)
	b.denied(err)
	_, err = b.OfferReset(ctx, eve, "shop", "sam", 25*time.Hour)
	b.is(err, tenant.ErrInvalid)
	b.must(b.CreateUser(ctx, b.op, "shop", "robot", "", true))
	_, err = b.OfferReset(ctx, eve, "shop", "robot", 0)
	b.is(err, tenant.ErrInvalid)
	_, err = b.OfferReset(ctx, eve, "shop", "nobody", 0)
	b.is(err, store.ErrNotFound)
	// A link ends with the rights of who made it, with the user, and with another password.
	for name, end := range map[string]func(){
		"its maker is disabled": func() { b.must(b.SetDisabled(ctx, b.op, "shop", "eve", true)) },
		"the user has more rights now": func() {
			b.must(b.SetDisabled(ctx, b.op, "shop", "eve", false))
			b.must(b.Bind(ctx, b.op, "east", "", sam, tenant.RoleAdmin, nil))
			b.must(b.Unbind(ctx, b.op, "shop", "", eve, tenant.RoleAdmin))
			b.must(b.PutRole(ctx, b.op, "shop", "people", tenant.Role{Rules: []tenant.Rule{{Verbs: []tenant.Verb{"*"}, Kinds: []string{"User"}}}}))
			b.must(b.Bind(ctx, b.op, "shop", "", eve, "people", nil))
		},
		"the user is disabled": func() { b.must(b.SetDisabled(ctx, b.op, "shop", "sam", true)) },
		"another password":     func() { b.must(b.SetPassword(ctx, b.op, "shop", "sam", "", "a third long password")) },
	} {
		t.Run(name, func(t *testing.T) {
			b.must(b.SetDisabled(ctx, b.op, "shop", "eve", false))
			b.must(b.SetDisabled(ctx, b.op, "shop", "sam", false))
			if err := b.Unbind(ctx, b.op, "east", "", sam, tenant.RoleAdmin); err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Fatal(err)
			}
			b.must(b.Bind(ctx, b.op, "shop", "", eve, tenant.RoleAdmin, nil))
			link, err := b.OfferReset(ctx, eve, "shop", "sam", 0)
			b.must(err)
			end()
			_, err = b.Redeem(ctx, link, next+"!")
			b.is(err, tenant.ErrInvitation)
		})
	}
	b.whole()
}

// log reads an organization's audit log.
func (b *bed) log(org string) (list []audit.Entry) {
	b.t.Helper()
	b.must(b.store.View(b.t.Context(), func(r *store.Reader) error {
		for after := int64(0); ; {
			page, err := audit.Entries(b.t.Context(), r, org, after, 0)
			if err != nil || len(page) == 0 {
				return err
			}
			list, after = append(list, page...), page[len(page)-1].Seq
		}
	}))
	return list
}

func count(list []audit.Entry, action string) (n int) {
	for _, e := range list {
		if e.Action == action {
			n++
		}
	}
	return n
}

func TestDeniedAttemptsAreToldWhereTheActorIsAtHome(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	mal := b.user("deli", "mal", tenant.RoleEditor)
	victim := len(b.log("shop"))
	long := strings.Repeat("x", 5000)
	b.denied(b.CreateUser(ctx, mal, "shop", "spy", password, false))
	b.denied(b.DeleteOrganization(ctx, mal, "shop"))
	b.denied(b.DeleteOrganization(ctx, mal, "nowhere"))
	_, err := b.Organization(ctx, mal, "shop")
	b.denied(err)
	_, _, err = b.Usage(ctx, mal, long, "sites")
	b.denied(err)
	b.denied(b.SetPassword(ctx, mal, "deli", "mal", "wrong", "another long password"))
	list := b.log("deli")
	if count(list, "denied") != 6 {
		t.Errorf("%d attempts are told of", count(list, "denied"))
	}
	for _, e := range list {
		if e.Action == "denied" && (e.Actor != "mal@deli" || len(e.Details) > 1000) {
			t.Errorf("%+v", e)
		}
	}
	for range 60 {
		b.denied(b.CreateProject(ctx, mal, "shop", "p"))
	}
	list = b.log("deli")
	if count(list, "denied") != 20 || count(list, "denied.more") != 0 {
		t.Errorf("%d attempts are told of, %d sums", count(list, "denied"), count(list, "denied.more"))
	}
	b.TellDenials(ctx, false) // the hour is not over
	b.pass(time.Hour)
	b.TellDenials(ctx, false)
	b.TellDenials(ctx, false)
	list = b.log("deli")
	if last := list[len(list)-1]; last.Action != "denied.more" || string(last.Details) != `{"attempts":46}` || count(list, "denied.more") != 1 {
		t.Errorf("%+v", last)
	}
	// The next hour is told by the next attempt too, and by the end of the process.
	for range 25 {
		b.denied(b.CreateProject(ctx, mal, "shop", "p"))
	}
	b.pass(time.Hour)
	b.denied(b.CreateProject(ctx, mal, "shop", "p"))
	for range 22 {
		b.denied(b.CreateProject(ctx, mal, "shop", "p"))
	}
	b.TellDenials(ctx, true)
	list = b.log("deli")
	if count(list, "denied") != 60 || count(list, "denied.more") != 3 {
		t.Errorf("%d attempts are told of, %d sums", count(list, "denied"), count(list, "denied.more"))
	}
	// Strangers are in no log: who is no user, and who is one no more.
	b.must(b.SetDisabled(ctx, b.op, "deli", "mal", true))
	whole := len(b.log("deli"))
	for _, a := range []tenant.Actor{mal, {Organization: "deli", Login: "nobody"}, {Organization: "shop", Login: "mal"}, {Organization: "nowhere", Login: "x"}, {}} {
		b.denied(b.CreateProject(ctx, a, "shop", "p"))
	}
	if len(b.log("shop")) != victim || len(b.log("deli")) != whole {
		t.Error("strangers filled a log")
	}
	if c := b.Denials(); c != (tenant.DenialCounts{Told: 60, Summed: 46 + 5 + 3, Strangers: 4}) {
		t.Errorf("%+v", c)
	}
	b.whole()
}

// All users of an organization together have a bound too: services cost their maker nothing.
func TestDeniedAttemptsOfAllUsersAreBounded(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	for i := range 12 {
		login := fmt.Sprint("robot", i)
		b.must(b.CreateUser(ctx, b.op, "deli", login, "", true))
		for range 21 {
			b.denied(b.CreateProject(ctx, tenant.Actor{Organization: "deli", Login: login}, "shop", "p"))
		}
	}
	if n := count(b.log("deli"), "denied"); n != 200 {
		t.Errorf("%d attempts are told of", n)
	}
	b.TellDenials(ctx, true)
	if c := b.Denials(); c.Told != 200 || c.Summed != 52 {
		t.Errorf("%+v", c)
	}
}

// dump is all rows of a backup, with what is encoded there decoded.
func (b *bed) dump() (list []string) {
	b.t.Helper()
	var file bytes.Buffer
	b.must(b.store.Backup(b.t.Context(), &file))
	zip, err := gzip.NewReader(&file)
	b.must(err)
	lines := bufio.NewScanner(zip)
	lines.Buffer(nil, 1<<20)
	var table struct{ Table, Types string }
	for lines.Scan() {
		var row []any
		if json.Unmarshal(lines.Bytes(), &row) != nil {
			b.must(json.Unmarshal(lines.Bytes(), &table))
			continue
		}
		text := table.Table
		for i, v := range row {
			if s, ok := v.(string); ok && table.Types[i] == 'b' {
				raw, err := base64.StdEncoding.DecodeString(s)
				b.must(err)
				v = string(raw)
			}
			text += fmt.Sprint("|", v)
		}
		list = append(list, text)
	}
	b.must(lines.Err())
	if len(list) < 20 {
		b.t.Errorf("the backup has %d rows", len(list))
	}
	return list
}

func TestErasure(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.must(b.CreateOrganization(ctx, b.op, "east", "gone", "Hidden title"))
	hid := b.user("gone", "hidden", tenant.RoleAdmin)
	b.must(b.Bind(ctx, b.op, "east", "", hid, tenant.RoleViewer, nil))
	b.must(b.store.Subscribe(ctx, "watch"))
	b.must(b.PutPlan(ctx, b.op, "op", "p", tenant.Plan{Limits: map[string]tenant.Limit{"things": {Most: 1, AtLimit: tenant.Warn}}}))
	b.must(b.AssignPlan(ctx, b.op, "gone", tenant.PlanRef{Organization: "op", Name: "p"}))
	b.must(b.use("gone", "things", 3))
	b.open(hid)
	site := store.Key{Organization: "gone", Kind: "Site", Name: "hidden-site"}
	for range 3 {
		_, err := b.store.Update(ctx, store.Change{Author: hid.String(), Reason: "hidden reason"}, func(tx *store.Tx) error {
			_, err := tx.Put(ctx, site, []byte(`{"host":"hidden.example.com"}`), store.Any)
			return errors.Join(err, tx.Emit(ctx, "purge", "gone", []byte(`{"url":"https://hidden.example.com/"}`)))
		})
		b.must(err)
	}
	noted, err := audit.Verify(ctx, b.store, "gone")
	b.must(err)
	b.is(b.Erase(ctx, b.op, "gone"), tenant.ErrInUse)
	_, err = b.store.Update(ctx, store.Change{Author: hid.String()}, func(tx *store.Tx) error { return tx.Delete(ctx, site, store.Any) })
	b.must(err)
	b.must(b.DeleteOrganization(ctx, b.op, "gone"))
	sam := b.user("shop", "sam", tenant.RoleAdmin)
	b.denied(b.Erase(ctx, sam, "gone"))
	b.denied(b.Erase(ctx, sam, "nowhere"))
	b.denied(b.Erase(ctx, hid, "gone"))
	b.denied(b.Erase(ctx, b.op, "op"))
	for range 2 { // the second time changes nothing
		b.must(b.Erase(ctx, b.op, "gone"))
	}
	if _, err := audit.Verify(ctx, b.store, "gone", noted); err != nil {
		t.Errorf("the chain: %v", err)
	}
	b.whole()
	for _, row := range b.dump() {
		if strings.Contains(row, "idden") && !strings.HasPrefix(row, "entries|east|audit|") { // the reseller's own log
			t.Error(row)
		}
	}
	b.must(b.store.View(ctx, func(r *store.Reader) error {
		n, err := r.CountEphemera(ctx, "session/gone", "")
		if n != 0 {
			t.Errorf("%d sessions are left", n)
		}
		return err
	}))
	var c *store.ConflictError
	if err := b.CreateOrganization(ctx, b.op, "west", "gone", ""); !errors.As(err, &c) {
		t.Errorf("its name was given again: %v", err)
	}
	if used, _, err := b.Usage(ctx, b.op, "east", "things"); err != nil || used != 0 {
		t.Errorf("%d are counted above, %v", used, err)
	}
}
