package v1

// Certificate is a certificate and its key for a listener.
type Certificate struct {
	TypeMeta `json:",inline"`
	Metadata Metadata        `json:"metadata" schema:"required"`
	Spec     CertificateSpec `json:"spec" schema:"required"`
}

// CertificateSpec is where a certificate comes from. Exactly one field is given.
type CertificateSpec struct {
	// Internal issues the certificate from the edge's own CA.
	Internal *InternalCertificate `json:"internal,omitempty"`
	// Files reads PEM files; they are read again when they change.
	Files *CertificateFiles `json:"files,omitempty" schema:"local"`
	// Inline is PEM in the document.
	Inline *CertificateInline `json:"inline,omitempty"`
	// ACME gets certificates from an authority such as Let's Encrypt (RFC 8555), and renews them.
	ACME *ACMECertificate `json:"acme,omitempty"`
	// OCSP staples the authority's word that the certificate is not revoked, where it has a responder.
	OCSP string `json:"ocsp,omitempty" schema:"enum=staple|off,default=staple"`
}

// InternalCertificate is issued by the edge's own CA.
type InternalCertificate struct {
	// Hostnames of the certificate.
	Hostnames []string `json:"hostnames,omitempty" schema:"maxItems=100,format=hostname-pattern"`
}

// CertificateFiles are PEM files.
type CertificateFiles struct {
	// Certificate chain, leaf first.
	Certificate string `json:"certificate" schema:"required,maxLength=4096"`
	// Key of the leaf.
	Key string `json:"key" schema:"required,maxLength=4096"`
}

// ACMECertificate is got from an ACME authority: one certificate for each host name. Until there is one,
// the edge's own CA answers for the name.
type ACMECertificate struct {
	// Hostnames to get certificates for, besides those of the sites that name this document.
	Hostnames []string `json:"hostnames,omitempty" schema:"maxItems=10000,format=hostname-pattern"`
	// Directory is the address of the authority's directory.
	Directory string `json:"directory,omitempty" schema:"default=https://acme-v02.api.letsencrypt.org/directory,maxLength=2048"`
	// CA holds the certificates that the directory's own TLS is checked with, as PEM; absent means the system's.
	CA string `json:"ca,omitempty" schema:"maxLength=262144"`
	// Email is told to the authority, for word of trouble.
	Email string `json:"email,omitempty" schema:"maxLength=320"`
	// ExternalAccount binds to an account that the authority knows already.
	ExternalAccount *ACMEExternalAccount `json:"externalAccount,omitempty"`
	// Challenges that may be used, tried in this order. Absent means tls-alpn-01 and http-01, or dns-01 when
	// dns is given. http-01 needs a listener in clear on port 80, tls-alpn-01 one with TLS on port 443.
	Challenges []string `json:"challenges,omitempty" schema:"maxItems=3,enum=http-01|tls-alpn-01|dns-01"`
	// DNS sets and removes the TXT records of dns-01.
	DNS *ACMEHook `json:"dns,omitempty"`
	// KeyType of the certificates' keys.
	KeyType string `json:"keyType,omitempty" schema:"enum=p256|p384|rsa2048|rsa4096,default=p256"`
	// OnDemand gets a certificate when a visitor first asks for a name.
	OnDemand *ACMEOnDemand `json:"onDemand,omitempty"`
}

// ACMEExternalAccount is what an authority gave out to bind accounts with (RFC 8555 section 7.3.4).
type ACMEExternalAccount struct {
	// KeyID names the key.
	KeyID string `json:"keyId" schema:"required,maxLength=1024"`
	// HMAC is the key, in base64url.
	HMAC string `json:"hmac" schema:"required,maxLength=1024,secret"`
}

// ACMEHook changes DNS. Exactly one of Exec and Webhook is given.
type ACMEHook struct {
	// Exec is a program and its first arguments. It is given three more: present or cleanup, the record's
	// name with its last dot, and its value; and ends with 0 once that is done.
	Exec []string `json:"exec,omitempty" schema:"maxItems=32,maxLength=4096,local"`
	// Webhook is an address that gets POST {"action": "present" or "cleanup", "name": ..., "value": ...} as
	// JSON and answers with a status of 2xx once that is done.
	Webhook string `json:"webhook,omitempty" schema:"maxLength=2048,local"`
	// Wait is how long after that the record is everywhere.
	Wait *Duration `json:"wait,omitempty" schema:"default=30s,min=0s,max=1h"`
	// Timeout of one call.
	Timeout Duration `json:"timeout,omitempty" schema:"default=1m,min=1s,max=10m"`
}

// ACMEOnDemand guards certificates on demand: only a name that a site of the visitor's listener has, by
// itself or by a wildcard such as *.example.com, is asked for. A site for all names (*) needs Ask too.
type ACMEOnDemand struct {
	// Ask is an address that is asked with GET and ?domain=NAME, and allows the name with a status of 2xx.
	Ask string `json:"ask,omitempty" schema:"maxLength=2048,local"`
	// PerMinute bounds how many names are tried, for this document on this edge.
	PerMinute int `json:"perMinute,omitempty" schema:"default=10,min=1,max=10000"`
}

// CertificateInline is PEM in the document.
type CertificateInline struct {
	// Certificate chain, leaf first.
	Certificate string `json:"certificate" schema:"required,maxLength=262144"`
	// Key of the leaf.
	Key string `json:"key" schema:"required,maxLength=65536,secret"`
}
