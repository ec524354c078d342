package acme

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	keyFile  = "ca-key.pem"
	certFile = "ca.pem"
	// maxFile bounds what is read of a file.
	maxFile = 64 << 10
)

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return explain("create the directory", dir, err)
	}
	return nil
}

func (ca *CA) loadKey() error {
	path := filepath.Join(ca.dir, keyFile)
	b, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, gerr := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if gerr != nil {
			return gerr
		}
		der, gerr := x509.MarshalPKCS8PrivateKey(key)
		if gerr != nil {
			return gerr
		}
		b, err = writeOnce(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	}
	if err != nil {
		return err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return damaged(path, ca.dir, errors.New("it is not PEM"))
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return damaged(path, ca.dir, err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return damaged(path, ca.dir, fmt.Errorf("it holds a %T, not an ECDSA key", k))
	}
	ca.key = key
	return nil
}

func (ca *CA) loadCert() error {
	path := filepath.Join(ca.dir, certFile)
	b, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = ca.newCert(); err == nil {
			b, err = writeOnce(path, b, 0o644)
		}
	}
	if err != nil {
		return err
	}
	if err := ca.parseCert(path, b); err != nil {
		return err
	}
	if ca.now().Add(caRenew).Before(ca.cert.NotAfter) {
		return nil
	}
	if b, err = ca.newCert(); err != nil {
		return err
	}
	if err := replace(path, b, 0o644); err != nil {
		return err
	}
	return ca.parseCert(path, b)
}

func (ca *CA) newCert() ([]byte, error) {
	der, err := ca.selfSign()
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func (ca *CA) parseCert(path string, b []byte) error {
	block, _ := pem.Decode(b)
	if block == nil {
		return damaged(path, ca.dir, errors.New("it is not PEM"))
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return damaged(path, ca.dir, err)
	}
	if !ca.key.PublicKey.Equal(cert.PublicKey) {
		return damaged(path, ca.dir, errNotPair)
	}
	ca.cert = cert
	return nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, explain("read", path, err)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes; a key or certificate of the internal CA has less than %d", path, info.Size(), maxFile)
	}
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, explain("read", path, err)
	}
	return b, err
}

// writeOnce writes a file that is not there yet, and returns what is in it: of several
// processes that do so at the same time one wins and all return the same.
func writeOnce(path string, b []byte, mode fs.FileMode) ([]byte, error) {
	tmp, err := writeTemp(path, b, mode)
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp)
	switch err := os.Link(tmp, path); {
	case errors.Is(err, fs.ErrExist):
		return readFile(path)
	case err != nil:
		return nil, explain("write", path, err)
	}
	return b, syncDir(filepath.Dir(path))
}

func replace(path string, b []byte, mode fs.FileMode) error {
	tmp, err := writeTemp(path, b, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		return explain("write", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// writeTemp writes b to a new file beside path, through to the disk.
func writeTemp(path string, b []byte, mode fs.FileMode) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return "", explain("write", path, err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		_ = os.Remove(f.Name())
		return "", explain("write", path, err)
	}
	return f.Name(), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return explain("open", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return explain("write", dir, err)
	}
	return nil
}

// explain adds to an error of the file system what to do about it.
func explain(act, path string, err error) error {
	mend := "check that the path is right and the disk is healthy"
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		mend = "the disk is full; free some space there or choose another state directory"
	case errors.Is(err, syscall.EROFS):
		mend = "the file system is read-only; choose a state directory that can be written"
	case errors.Is(err, fs.ErrPermission):
		mend = fmt.Sprintf("make it accessible to the user that this process runs as (uid %d) or choose another state directory", os.Getuid())
	case errors.Is(err, syscall.ENOTDIR):
		mend = "a part of the path is a file; choose another state directory"
	}
	return fmt.Errorf("the internal CA cannot %s %s: %w; %s", act, path, err, mend)
}

func damaged(path, dir string, err error) error {
	return fmt.Errorf("the internal CA's file %s is damaged: %w; restore it from a backup, or move %s away to have a new CA made, which clients must then trust instead", path, err, dir)
}
