package control

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	certificateFile = "control.pem"
	certificateKey  = "control-key.pem"
	certificateLife = 397 * 24 * time.Hour
	certificateLeft = 30 * 24 * time.Hour // renewed at a start when less is left
)

// Certificate reads the certificate of the API from two files, or, without names, takes one that the control plane makes by
// itself in its folder. Path is the file that clients are told to trust.
func Certificate(data, certFile, keyFile string, hosts []string) (cert tls.Certificate, path string, err error) {
	if certFile != "" || keyFile != "" {
		cert, err = tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			err = fmt.Errorf("control: the certificate: %w; give --tls-cert and --tls-key, both as PEM", err)
		}
		return cert, certFile, err
	}
	path, key := filepath.Join(data, certificateFile), filepath.Join(data, certificateKey)
	cert, err = tls.LoadX509KeyPair(path, key)
	if err == nil && cert.Leaf != nil && time.Until(cert.Leaf.NotAfter) > certificateLeft && names(cert.Leaf, hosts) {
		return cert, path, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return cert, path, fmt.Errorf("control: %w; remove both files to have new ones made", err)
	}
	if err := makeCertificate(path, key, hosts); err != nil {
		return cert, path, fmt.Errorf("control: %w", err)
	}
	cert, err = tls.LoadX509KeyPair(path, key)
	return cert, path, err
}

func names(c *x509.Certificate, hosts []string) bool {
	for _, h := range hosts {
		if c.VerifyHostname(h) != nil {
			return false
		}
	}
	return true
}

func makeCertificate(path, keyPath string, hosts []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Relais control plane"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true, IsCA: true,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}
