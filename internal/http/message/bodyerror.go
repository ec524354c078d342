package message

// BodyError is why a request body ended before its end. Errors.As finds it in what
// Next returned and in what came of it, so that the right page can be given.
type BodyError struct {
	Status int    // 400 malformed or cut short, 408 slow, 413 too large
	Code   string // a token for logs
}

// Error implements error.
func (e *BodyError) Error() string { return "request body: " + e.Code }

// The ends of a request body other than io.EOF.
var (
	ErrBodyTruncated = &BodyError{400, "body_truncated"}
	ErrBodyMalformed = &BodyError{400, "body_malformed"}
	ErrBodyTrailer   = &BodyError{400, "trailer_malformed"}
	ErrBodySlow      = &BodyError{408, "body_timeout"}
	ErrBodyTooLarge  = &BodyError{413, "body_too_large"}
	ErrBodyClosed    = &BodyError{400, "body_closed"}
)
