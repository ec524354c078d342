// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// What the filter knows of a packet, and how it is read.
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// Reasons, in the order of the names in reasons.go.
enum {
	PASSED, PASSED_OTHER, PASSED_LINK, PASSED_MANAGE, PASSED_ALLOWED, PASSED_SYN, PRESSED_SYN,
	COOKIE, MALFORMED, MARTIAN, FRAGMENT, DENIED, REFLECTION, SOURCE_SYN, SOURCE_UDP, SOURCE_OTHER,
	COOKIE_FAILED, LOST, REASONS
};
enum { CLASS_SYN, CLASS_UDP, CLASS_OTHER, CLASSES };
enum { DENY = 1, ALLOW = 2, MANAGE = 3 };
enum { PORT_MANAGE = 1, PORT_REFLECTS = 2, PORT_SERVED = 4 };
enum { OK, NOT_IP, BAD, NEIGHBOUR };

struct state {
	__u64 lease; // until when the filter filters, ns of the monotonic clock
	__u32 cookies; // the kernel takes cookies that it has not sent itself
	__u32 unused;
};
struct count { __u64 packets, bytes; };
struct key4 { __u32 bits, addr; };
struct key6 { __u32 bits, addr[4]; };
struct verdict { __u64 until; __u32 slot; __u8 action; __u8 unused[3]; };
struct bucket { __u64 next[CLASSES]; };
struct sample { __u64 at; __u32 len; __u16 reason, captured; __u8 head[96]; };

struct packet {
	__u32 src[4], dst[4]; // IPv4: only the first word
	__u64 source; // key of the buckets: the IPv4 address, or the /64
	__u32 len; // of the frame
	__u32 l3; // where the IP header begins
	__u32 payload; // bytes after the IP headers
	__u16 sport, dport; // network order
	__u8 proto, v6, fragment, ports, syn;
	__u8 deep; // there is something between the IP header and that of TCP
};

struct vlan { __be16 tci, proto; };

// upper reads the header above IP. A fragment that is not the first has none.
static __always_inline int upper(struct packet *p, void *at, void *end)
{
	if (p->proto == IPPROTO_TCP) {
		struct tcphdr *t = at;
		__u8 f;

		if ((void *)(t + 1) > end || t->doff < 5 || t->doff * 4 > p->payload)
			return BAD;
		f = ((__u8 *)t)[13] & 0x3f; // FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32
		if (!t->source || !t->dest || !(f & 0x16)) // neither SYN nor RST nor ACK
			return BAD;
		if (f & 2 && f & 5 || (f & 5) == 5 || f & 1 && !(f & 16))
			return BAD;
		p->sport = t->source;
		p->dport = t->dest;
		p->ports = 1;
		p->syn = (f & 0x12) == 2;
	} else if (p->proto == IPPROTO_UDP) {
		struct udphdr *u = at;
		__u32 len;

		if ((void *)(u + 1) > end || !u->dest)
			return BAD;
		len = bpf_ntohs(u->len);
		if (len < sizeof(*u) || len > p->payload && !p->fragment)
			return BAD;
		p->sport = u->source;
		p->dport = u->dest;
		p->ports = 1;
	}
	return OK;
}

static __always_inline int parse4(struct packet *p, void *at, void *end)
{
	struct iphdr *h = at;
	__u32 total, hlen, off;

	if ((void *)(h + 1) > end || h->version != 4 || h->ihl < 5)
		return BAD;
	total = bpf_ntohs(h->tot_len);
	hlen = h->ihl * 4;
	if (total < hlen || total > p->len - p->l3)
		return BAD;
	p->src[0] = h->saddr;
	p->dst[0] = h->daddr;
	p->source = h->saddr;
	p->proto = h->protocol;
	p->payload = total - hlen;
	// Options: only what speaks to routers has them (RFC 7126).
	if (hlen > sizeof(*h)) {
		if (p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP)
			return BAD;
		p->deep = 1;
		return OK;
	}
	off = bpf_ntohs(h->frag_off);
	p->fragment = (off & 0x3fff) != 0;
	if (off & 0x1fff)
		return OK;
	return upper(p, h + 1, end);
}

// neighbour says whether an ICMPv6 message is one without which IPv6 ends: neighbour discovery
// (RFC 4861), which nobody beyond the link can send, and listeners of multicast.
static __always_inline int neighbour(void *at, void *end, __u8 hops)
{
	__u8 *type = at;

	if ((void *)(type + 1) > end)
		return BAD;
	if (*type >= 133 && *type <= 137)
		return hops == 255 ? NEIGHBOUR : BAD;
	if (*type >= 130 && *type <= 132 || *type == 143)
		return hops == 1 ? NEIGHBOUR : BAD;
	return OK;
}

static __always_inline int parse6(struct packet *p, void *at, void *end)
{
	struct ipv6hdr *h = at;
	__u8 next, hops;

	if ((void *)(h + 1) > end || h->version != 6)
		return BAD;
	p->payload = bpf_ntohs(h->payload_len);
	if (p->payload > p->len - p->l3 - sizeof(*h))
		return BAD;
	p->v6 = 1;
	__builtin_memcpy(p->src, &h->saddr, 16);
	__builtin_memcpy(p->dst, &h->daddr, 16);
	p->source = (__u64)p->src[1] << 32 | p->src[0];
	next = h->nexthdr;
	hops = h->hop_limit;
	at = h + 1;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u8 *e = at;
		__u32 n;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS && next != IPPROTO_FRAGMENT)
			break;
		if ((void *)(e + 8) > end)
			return BAD;
		p->deep = 1;
		if (next == IPPROTO_ROUTING && e[2] == 0) // RFC 5095
			return BAD;
		if (next == IPPROTO_FRAGMENT) {
			__u16 off = bpf_ntohs(*(__u16 *)(e + 2));

			n = 8;
			p->fragment = (off & 0xfff9) != 0; // an atomic fragment is whole (RFC 6946)
			if (off & 0xfff8) {
				p->proto = e[0];
				return OK;
			}
		} else {
			n = (e[1] + 1) * 8;
		}
		if (n > p->payload)
			return BAD;
		p->payload -= n;
		next = e[0];
		at = e + n;
	}
	p->proto = next;
	if (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS || next == IPPROTO_FRAGMENT)
		return BAD;
	if (next == IPPROTO_ICMPV6 && !p->fragment) {
		int r = neighbour(at, end, hops);

		if (r != OK)
			return r;
	}
	return upper(p, at, end);
}

// parse reads a frame, through two tags of VLANs at most.
static __always_inline int parse(struct xdp_md *ctx, struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	void *at = eth + 1;
	__u16 proto;

	p->len = bpf_xdp_get_buff_len(ctx);
	if (at > end)
		return NOT_IP;
	proto = eth->h_proto;
	p->l3 = sizeof(*eth);
#pragma unroll
	for (int i = 0; i < 2; i++) {
		struct vlan *v = at;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(v + 1) > end)
			return BAD;
		proto = v->proto;
		at = v + 1;
		p->l3 += sizeof(*v);
	}
	if (proto == bpf_htons(ETH_P_IP))
		return parse4(p, at, end);
	if (proto == bpf_htons(ETH_P_IPV6))
		return parse6(p, at, end);
	return NOT_IP;
}

// martian says whether a source cannot be one (RFC 6890, RFC 4291), or is the destination.
static __always_inline int martian(struct packet *p)
{
	if (p->v6) {
		__u32 a = bpf_ntohl(p->src[0]);

		if (a >> 24 == 0xff)
			return 1;
		if (a | p->src[1])
			return a == bpf_ntohl(p->dst[0]) && p->src[1] == p->dst[1] && p->src[2] == p->dst[2] && p->src[3] == p->dst[3];
		// ::1, mapped IPv4, and :: but for who has no address yet
		if (!p->src[2] && !p->src[3])
			return p->proto == IPPROTO_TCP;
		return !p->src[2] || p->src[2] == bpf_htonl(0xffff);
	}
	__u32 a = bpf_ntohl(p->src[0]);
	__u8 first = a >> 24;

	if (p->src[0] == p->dst[0] || first == 127 || first >= 224)
		return 1;
	// Who asks for an address has none: DHCP.
	return first == 0 && !(p->proto == IPPROTO_UDP && p->dport == bpf_htons(67));
}
