// Package keypair reads certificates with their keys as documents give them: from files, which may
// change, or from the document itself.
package keypair

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	v1 "github.com/relais-edge/relais/api/v1"
)

// maxPEM bounds a file, in bytes.
const maxPEM = 1 << 20

// Stamp changes when one of the files does: their sizes and times.
func Stamp(f *v1.CertificateFiles) string {
	s := ""
	for _, path := range [...]string{f.Certificate, f.Key} {
		info, err := os.Stat(path)
		if err != nil {
			s += " " + err.Error()
			continue
		}
		s += fmt.Sprintf(" %d %d", info.ModTime().UnixNano(), info.Size())
	}
	return s
}

// Read reads a certificate and its key from files in PEM. The leaf is parsed.
func Read(f *v1.CertificateFiles) (*tls.Certificate, error) {
	cert, err := ReadPEM(f.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := ReadPEM(f.Key)
	if err != nil {
		return nil, err
	}
	p, err := Parse(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", f.Certificate, f.Key, err)
	}
	return p, nil
}

// Parse makes a certificate of PEM, its leaf first, and the leaf's key in PEM. The leaf is parsed.
func Parse(cert, key []byte) (*tls.Certificate, error) {
	p, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%w; the certificate must be PEM, leaf first, and the key the leaf's, in PEM without a password", err)
	}
	if p.Leaf == nil {
		if p.Leaf, err = x509.ParseCertificate(p.Certificate[0]); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

// ReadPEM reads a file of at most 1 MiB.
func ReadPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, ExplainFile(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return nil, ExplainFile(err)
	}
	if len(b) > maxPEM {
		return nil, fmt.Errorf("%s is longer than %d bytes; it is not a certificate or key in PEM", path, maxPEM)
	}
	return b, nil
}

// ExplainFile adds to an error of a file how to mend it.
func ExplainFile(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; check the path, which is taken from the directory that the process was started in", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; make the file readable for the user that this process runs as (uid %d)", err, os.Getuid())
	}
	return err
}
