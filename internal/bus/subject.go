package bus

// Subjects. NAME is a PoP's; a PoP may publish only under its own up and peer subjects, and hears only its own down,
// what is for all, and peers.
//
//	up.NAME.beat        heartbeat: position of the manifest, health; answered with a head where the PoP is behind
//	up.NAME.table       asks for the table of tenants
//	up.NAME.blob        asks for a piece of a blob
//	up.NAME.purges      asks for purges after a number
//	up.NAME.purged      purges that it obeys, by number
//	up.NAME.usage       a batch of usage; answered when it is kept
//	up.NAME.report      what happened there: a bundle refused, a fallback, an order of a person
//	up.NAME.renew       asks for a new certificate
//	down.NAME.head      a new manifest: head, what changed of the table, small blobs
//	down.NAME.order     what a person wants of this PoP
//	all.purge           a purge, numbered
//	all.keys            the keys that sign manifests
//	peer.NAME.limits    what shared rate limits took there
const (
	Beat   = "beat"
	Table  = "table"
	Blob   = "blob"
	Purges = "purges"
	Purged = "purged"
	Usage  = "usage"
	Report = "report"
	Renew  = "renew"
	Head   = "head"
	Order  = "order"
	Limits = "limits"

	AllPurge = "all.purge"
	AllKeys  = "all.keys"
)

// Control is the group in which control planes share what PoPs ask.
const Control = "control"

// Up is the subject on which a PoP tells or asks; * is every PoP.
func Up(pop, what string) string { return "up." + pop + "." + what }

// Down is the subject on which one PoP is told.
func Down(pop, what string) string { return "down." + pop + "." + what }

// Peer is the subject on which a PoP tells the others; * is every PoP.
func Peer(pop, what string) string { return "peer." + pop + "." + what }
