package qpack

import (
	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
)

// entry is a line of the static table.
type entry struct {
	id          message.ID
	name, value []byte
}

// static is the static table (RFC 9204 appendix A). Nobody writes into it.
var static = [99]entry{
	{hpack.Authority, []byte(":authority"), []byte("")},
	{hpack.Path, []byte(":path"), []byte("/")},
	{message.Age, []byte("age"), []byte("0")},
	{message.ContentDisposition, []byte("content-disposition"), []byte("")},
	{message.ContentLength, []byte("content-length"), []byte("0")},
	{message.Cookie, []byte("cookie"), []byte("")},
	{message.Date, []byte("date"), []byte("")},
	{message.ETag, []byte("etag"), []byte("")},
	{message.IfModifiedSince, []byte("if-modified-since"), []byte("")},
	{message.IfNoneMatch, []byte("if-none-match"), []byte("")},
	{message.LastModified, []byte("last-modified"), []byte("")},
	{message.Link, []byte("link"), []byte("")},
	{message.Location, []byte("location"), []byte("")},
	{message.Referer, []byte("referer"), []byte("")},
	{message.SetCookie, []byte("set-cookie"), []byte("")},
	{hpack.Method, []byte(":method"), []byte("CONNECT")},
	{hpack.Method, []byte(":method"), []byte("DELETE")},
	{hpack.Method, []byte(":method"), []byte("GET")},
	{hpack.Method, []byte(":method"), []byte("HEAD")},
	{hpack.Method, []byte(":method"), []byte("OPTIONS")},
	{hpack.Method, []byte(":method"), []byte("POST")},
	{hpack.Method, []byte(":method"), []byte("PUT")},
	{hpack.Scheme, []byte(":scheme"), []byte("http")},
	{hpack.Scheme, []byte(":scheme"), []byte("https")},
	{hpack.Status, []byte(":status"), []byte("103")},
	{hpack.Status, []byte(":status"), []byte("200")},
	{hpack.Status, []byte(":status"), []byte("304")},
	{hpack.Status, []byte(":status"), []byte("404")},
	{hpack.Status, []byte(":status"), []byte("503")},
	{message.Accept, []byte("accept"), []byte("*/*")},
	{message.Accept, []byte("accept"), []byte("application/dns-message")},
	{message.AcceptEncoding, []byte("accept-encoding"), []byte("gzip, deflate, br")},
	{message.AcceptRanges, []byte("accept-ranges"), []byte("bytes")},
	{message.AccessControlAllowHeaders, []byte("access-control-allow-headers"), []byte("cache-control")},
	{message.AccessControlAllowHeaders, []byte("access-control-allow-headers"), []byte("content-type")},
	{message.AccessControlAllowOrigin, []byte("access-control-allow-origin"), []byte("*")},
	{message.CacheControl, []byte("cache-control"), []byte("max-age=0")},
	{message.CacheControl, []byte("cache-control"), []byte("max-age=2592000")},
	{message.CacheControl, []byte("cache-control"), []byte("max-age=604800")},
	{message.CacheControl, []byte("cache-control"), []byte("no-cache")},
	{message.CacheControl, []byte("cache-control"), []byte("no-store")},
	{message.CacheControl, []byte("cache-control"), []byte("public, max-age=31536000")},
	{message.ContentEncoding, []byte("content-encoding"), []byte("br")},
	{message.ContentEncoding, []byte("content-encoding"), []byte("gzip")},
	{message.ContentType, []byte("content-type"), []byte("application/dns-message")},
	{message.ContentType, []byte("content-type"), []byte("application/javascript")},
	{message.ContentType, []byte("content-type"), []byte("application/json")},
	{message.ContentType, []byte("content-type"), []byte("application/x-www-form-urlencoded")},
	{message.ContentType, []byte("content-type"), []byte("image/gif")},
	{message.ContentType, []byte("content-type"), []byte("image/jpeg")},
	{message.ContentType, []byte("content-type"), []byte("image/png")},
	{message.ContentType, []byte("content-type"), []byte("text/css")},
	{message.ContentType, []byte("content-type"), []byte("text/html; charset=utf-8")},
	{message.ContentType, []byte("content-type"), []byte("text/plain")},
	{message.ContentType, []byte("content-type"), []byte("text/plain;charset=utf-8")},
	{message.Range, []byte("range"), []byte("bytes=0-")},
	{message.StrictTransportSecurity, []byte("strict-transport-security"), []byte("max-age=31536000")},
	{message.StrictTransportSecurity, []byte("strict-transport-security"), []byte("max-age=31536000; includesubdomains")},
	{message.StrictTransportSecurity, []byte("strict-transport-security"), []byte("max-age=31536000; includesubdomains; preload")},
	{message.Vary, []byte("vary"), []byte("accept-encoding")},
	{message.Vary, []byte("vary"), []byte("origin")},
	{message.XContentTypeOptions, []byte("x-content-type-options"), []byte("nosniff")},
	{message.Other, []byte("x-xss-protection"), []byte("1; mode=block")},
	{hpack.Status, []byte(":status"), []byte("100")},
	{hpack.Status, []byte(":status"), []byte("204")},
	{hpack.Status, []byte(":status"), []byte("206")},
	{hpack.Status, []byte(":status"), []byte("302")},
	{hpack.Status, []byte(":status"), []byte("400")},
	{hpack.Status, []byte(":status"), []byte("403")},
	{hpack.Status, []byte(":status"), []byte("421")},
	{hpack.Status, []byte(":status"), []byte("425")},
	{hpack.Status, []byte(":status"), []byte("500")},
	{message.AcceptLanguage, []byte("accept-language"), []byte("")},
	{message.AccessControlAllowCredentials, []byte("access-control-allow-credentials"), []byte("FALSE")},
	{message.AccessControlAllowCredentials, []byte("access-control-allow-credentials"), []byte("TRUE")},
	{message.AccessControlAllowHeaders, []byte("access-control-allow-headers"), []byte("*")},
	{message.AccessControlAllowMethods, []byte("access-control-allow-methods"), []byte("get")},
	{message.AccessControlAllowMethods, []byte("access-control-allow-methods"), []byte("get, post, options")},
	{message.AccessControlAllowMethods, []byte("access-control-allow-methods"), []byte("options")},
	{message.AccessControlExposeHeaders, []byte("access-control-expose-headers"), []byte("content-length")},
	{message.AccessControlRequestHeaders, []byte("access-control-request-headers"), []byte("content-type")},
	{message.AccessControlRequestMethod, []byte("access-control-request-method"), []byte("get")},
	{message.AccessControlRequestMethod, []byte("access-control-request-method"), []byte("post")},
	{message.AltSvc, []byte("alt-svc"), []byte("clear")},
	{message.Authorization, []byte("authorization"), []byte("")},
	{message.ContentSecurityPolicy, []byte("content-security-policy"), []byte("script-src 'none'; object-src 'none'; base-uri 'none'")},
	{message.EarlyData, []byte("early-data"), []byte("1")},
	{message.Other, []byte("expect-ct"), []byte("")},
	{message.Forwarded, []byte("forwarded"), []byte("")},
	{message.IfRange, []byte("if-range"), []byte("")},
	{message.Origin, []byte("origin"), []byte("")},
	{message.Other, []byte("purpose"), []byte("prefetch")},
	{message.Server, []byte("server"), []byte("")},
	{message.Other, []byte("timing-allow-origin"), []byte("*")},
	{message.UpgradeInsecureRequests, []byte("upgrade-insecure-requests"), []byte("1")},
	{message.UserAgent, []byte("user-agent"), []byte("")},
	{message.XForwardedFor, []byte("x-forwarded-for"), []byte("")},
	{message.XFrameOptions, []byte("x-frame-options"), []byte("deny")},
	{message.XFrameOptions, []byte("x-frame-options"), []byte("sameorigin")},
}

// byID holds the places in the static table of each name that has an id.
var byID = makeByID()

func makeByID() *[256][]uint8 {
	var t [256][]uint8
	for i, e := range static {
		if e.id != message.Other {
			t[e.id] = append(t[e.id], uint8(i))
		}
	}
	return &t
}
