// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// SYN cookies, answered before the machine has spent a socket buffer on the SYN. The cookie is the
// kernel's own, so that its listener takes the ACK. The answer has no option but the segment size:
// the kernel hides the offset of its time stamps, in which it would keep the others.
#pragma once

enum { WINDOW = 29200, HEADER = 24, LONGEST = 60 };

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

// add adds words of four bytes on the stack to a sum (RFC 1071).
static __always_inline __u32 add(void *from, __u32 size, __u32 sum)
{
	return (__u32)bpf_csum_diff(0, 0, from, size, sum);
}

// header is the answer's TCP header with one option.
struct header {
	__be16 source, dest;
	__be32 seq, ack;
	__u8 off, flags;
	__be16 window, check, urgent;
	__u8 kind, size;
	__be16 mss;
};

// make fills the answer to a SYN.
static __always_inline void make(struct header *h, struct packet *p, __u32 cookie, __be32 seq)
{
	struct {
		__u32 src[4], dst[4];
	} ends;
	__u32 sum;

	h->source = p->dport;
	h->dest = p->sport;
	h->seq = bpf_htonl(cookie);
	h->ack = bpf_htonl(bpf_ntohl(seq) + 1);
	h->off = (HEADER / 4) << 4;
	h->flags = 0x12;
	h->window = bpf_htons(WINDOW);
	h->check = 0;
	h->urgent = 0;
	h->kind = 2;
	h->size = 4;
	h->mss = bpf_htons(p->v6 ? mss6 : mss4);
	sum = bpf_htons(IPPROTO_TCP) + bpf_htons(HEADER);
	if (p->v6) {
		__builtin_memcpy(ends.src, p->src, 16);
		__builtin_memcpy(ends.dst, p->dst, 16);
		sum = add(&ends, sizeof(ends), sum);
	} else {
		__u32 two[2] = {p->src[0], p->dst[0]};

		sum = add(two, sizeof(two), sum);
	}
	h->check = fold(add(h, HEADER, sum));
}

// cookie_of asks the kernel for its cookie.
static __always_inline __s64 cookie_of(struct xdp_md *ctx, struct packet *p, void *ip, void *end, __be32 *seq)
{
	__u8 copy[LONGEST] = {};
	struct tcphdr *t = (void *)copy;
	__u32 at = p->l3, len;

	if (p->v6) {
		struct ipv6hdr *h = ip;
		struct tcphdr *in = (void *)(h + 1);

		if ((void *)(in + 1) > end)
			return -1;
		len = in->doff * 4;
		at += sizeof(*h);
		if (len < sizeof(*in) || len > LONGEST || bpf_xdp_load_bytes(ctx, at, copy, len))
			return -1;
		*seq = t->seq;
		return bpf_tcp_raw_gen_syncookie_ipv6(h, t, len);
	}
	struct iphdr *h = ip;
	struct tcphdr *in = (void *)(h + 1);

	if ((void *)(in + 1) > end)
		return -1;
	len = in->doff * 4;
	at += sizeof(*h);
	if (len < sizeof(*in) || len > LONGEST || bpf_xdp_load_bytes(ctx, at, copy, len))
		return -1;
	*seq = t->seq;
	return bpf_tcp_raw_gen_syncookie_ipv4(h, t, len);
}

// turn makes the IP header that of the answer.
static __always_inline int turn(struct packet *p, void *ip, void *end, struct header *tcp)
{
	if (p->v6) {
		struct ipv6hdr *h = ip;

		if ((void *)(h + 1) + sizeof(*tcp) > end)
			return -1;
		__builtin_memcpy(&h->saddr, p->dst, 16);
		__builtin_memcpy(&h->daddr, p->src, 16);
		h->payload_len = bpf_htons(HEADER);
		h->hop_limit = 64;
		__builtin_memcpy(h + 1, tcp, sizeof(*tcp));
		return 0;
	}
	struct iphdr *h = ip, new = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP};

	if ((void *)(h + 1) + sizeof(*tcp) > end)
		return -1;
	new.saddr = p->dst[0];
	new.daddr = p->src[0];
	new.tot_len = bpf_htons(sizeof(new) + HEADER);
	new.frag_off = bpf_htons(0x4000); // not to be fragmented, so it needs no identification (RFC 6864)
	new.check = fold(add(&new, sizeof(new), 0));
	*h = new;
	__builtin_memcpy(h + 1, tcp, sizeof(*tcp));
	return 0;
}

// answer turns the SYN into its answer; negative when that cannot be.
static __always_inline int answer(struct xdp_md *ctx, struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 l3 = p->l3 & 0x1f, want;
	struct header tcp = {};
	struct ethhdr *eth;
	__u8 mac[ETH_ALEN];
	__be32 seq = 0;
	__s64 cookie;

	if (data + l3 + sizeof(struct ipv6hdr) > end)
		return -1;
	cookie = cookie_of(ctx, p, data + l3, end, &seq);
	if (cookie < 0)
		return -1;
	make(&tcp, p, (__u32)cookie, seq);
	want = l3 + (p->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) + HEADER;
	if (bpf_xdp_adjust_tail(ctx, (int)(want - p->len)))
		return -1;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = data;
	if ((void *)(eth + 1) > end)
		return -1;
	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	return turn(p, data + l3, end, &tcp);
}
