//go:build !unix

package segment

import "os"

func flock(*os.File) error { return nil }

func isReadOnly(error) bool { return false }
