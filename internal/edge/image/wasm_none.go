//go:build !nodynamic

package image

import (
	"errors"
	stdimage "image"
	"io"
)

const withWebP, withAVIF = false, false

var errNoEncoder = errors.New("this build has no encoder for the format; build with the tag nodynamic")

func encodeWebP(io.Writer, *stdimage.NRGBA, int) error { return errNoEncoder }

func encodeAVIF(io.Writer, *stdimage.NRGBA, int) error { return errNoEncoder }
