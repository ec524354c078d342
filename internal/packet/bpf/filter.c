// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// The packet filter. Ranks from the cheapest and most certain to the dearest; each packet is
// counted once, under the reason that decided it. Nothing here loops without a bound, and whatever
// is not understood passes: the machine's own stack is stricter than a filter may be.
#include "parse.h"

// What user space decides before the program is loaded.
volatile const __u64 period[CLASSES];    // ns a packet of a source; 0 is no limit
volatile const __u64 tolerance[CLASSES]; // ns that a source may be ahead
volatile const __u64 syn_period;         // ns a SYN of a listener on a CPU, before cookies; 0 is no cookies
volatile const __u64 syn_tolerance;
volatile const __u32 sample_mask;        // one packet of mask+1 of a reason is sampled
volatile const __u8 sampling;
volatile const __u8 fragments_dropped;
volatile const __u16 mss4, mss6;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, __u64);
} hits SEC(".maps");

// Bits of a port: see PORT_*.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u8);
} ports SEC(".maps");

struct list4 {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 140000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key4);
	__type(value, struct verdict);
} empty4 SEC(".maps");

struct list6 {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 140000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key6);
	__type(value, struct verdict);
} empty6 SEC(".maps");

// The lists stand in maps of one place, so that a whole list is changed by one store.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct list4);
} lists4 SEC(".maps") = {.values = {&empty4}};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct list6);
} lists6 SEC(".maps") = {.values = {&empty6}};

// When each source's next packet of a class is due (a token bucket, kept as one time: GCRA). The
// least recently seen source goes when it is full, so that made-up sources cannot fill it.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, __u64);
	__type(value, struct bucket);
} sources SEC(".maps");

// The same for the SYNs that the kernel gets, by listener.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 262144);
} samples SEC(".maps");

static __always_inline void sample(struct xdp_md *ctx, __u32 reason, __u32 len, __u64 now)
{
	struct sample *s = bpf_ringbuf_reserve(&samples, sizeof(*s), 0);
	__u32 n = len, lost = LOST;

	if (!s) {
		struct count *c = bpf_map_lookup_elem(&counts, &lost);

		if (c)
			c->packets++;
		return;
	}
	if (n > sizeof(s->head))
		n = sizeof(s->head);
	s->at = now;
	s->len = len;
	s->reason = reason;
	s->captured = n;
	if (n < 1 || bpf_xdp_load_bytes(ctx, 0, s->head, n))
		s->captured = 0;
	// Nobody is woken: user space looks some times a second, and takes what the ring holds.
	bpf_ringbuf_submit(s, BPF_RB_NO_WAKEUP);
}

static __always_inline int done(struct xdp_md *ctx, __u32 reason, int action, __u32 len, __u64 now)
{
	struct count *c = bpf_map_lookup_elem(&counts, &reason);

	if (!c)
		return action;
	c->packets++;
	c->bytes += len;
	if (sampling && !(c->packets & sample_mask))
		sample(ctx, reason, len, now);
	return action;
}

// due says whether one more packet keeps within a bucket, and takes its place if so.
static __always_inline int due(__u64 *next, __u64 now, __u64 step, __u64 ahead)
{
	__u64 at = *next;

	if (at > now + ahead)
		return 0;
	*next = (at > now ? at : now) + step;
	return 1;
}

static __always_inline int source_keeps(struct packet *p, __u32 class, __u64 now)
{
	struct bucket *b, first = {};
	__u64 step = period[class], ahead = tolerance[class];

	if (!step)
		return 1;
	b = bpf_map_lookup_elem(&sources, &p->source);
	if (b)
		return due(&b->next[class], now, step, ahead);
	first.next[class] = now + step;
	bpf_map_update_elem(&sources, &p->source, &first, BPF_ANY);
	return 1;
}

// listed finds the rule that decides on a source: that of the longest prefix.
static __always_inline struct verdict *listed(struct packet *p)
{
	__u32 zero = 0;
	void *list;

	if (p->v6) {
		struct key6 k = {.bits = 128};

		list = bpf_map_lookup_elem(&lists6, &zero);
		if (!list)
			return 0;
		__builtin_memcpy(k.addr, p->src, 16);
		return bpf_map_lookup_elem(list, &k);
	}
	struct key4 k = {.bits = 32, .addr = p->src[0]};

	list = bpf_map_lookup_elem(&lists4, &zero);
	return list ? bpf_map_lookup_elem(list, &k) : 0;
}

// asked says whether a socket of this machine is connected to just that far end: then a packet
// from a port of reflectors is the answer to a question of ours.
static __always_inline int asked(struct xdp_md *ctx, struct packet *p)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	int size, yes;

	if (p->v6) {
		__builtin_memcpy(t.ipv6.saddr, p->src, 16);
		__builtin_memcpy(t.ipv6.daddr, p->dst, 16);
		t.ipv6.sport = p->sport;
		t.ipv6.dport = p->dport;
		size = sizeof(t.ipv6);
	} else {
		t.ipv4.saddr = p->src[0];
		t.ipv4.daddr = p->dst[0];
		t.ipv4.sport = p->sport;
		t.ipv4.dport = p->dport;
		size = sizeof(t.ipv4);
	}
	sk = bpf_sk_lookup_udp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	yes = sk->state == BPF_TCP_ESTABLISHED;
	bpf_sk_release(sk);
	return yes;
}

static __always_inline __u8 port_bits(__u16 port)
{
	__u32 k = bpf_ntohs(port);
	__u8 *b = bpf_map_lookup_elem(&ports, &k);

	return b ? *b : 0;
}

#include "cookie.h"

static __always_inline int listed_verdict(struct packet *p, __u64 now, __u8 *action)
{
	struct verdict *v = listed(p);
	__u64 *n;
	__u32 slot;

	if (!v || v->until <= now)
		return 0;
	*action = v->action;
	slot = v->slot;
	n = bpf_map_lookup_elem(&hits, &slot);
	if (n && v->action != MANAGE)
		*n += 1;
	return 1;
}

// syn decides on a SYN whose source keeps within its bucket.
static __always_inline int syn(struct xdp_md *ctx, struct packet *p, struct state *st, __u64 now)
{
	__u32 slot = ((p->dst[0] ^ p->dst[3] ^ p->dport) * 0x9E3779B1) >> 22;
	__u64 *next;
	int sent;

	if (!syn_period || p->deep || !(port_bits(p->dport) & PORT_SERVED))
		return done(ctx, PASSED_SYN, XDP_PASS, p->len, now);
	next = bpf_map_lookup_elem(&listeners, &slot);
	if (!next || due(next, now, syn_period, syn_tolerance))
		return done(ctx, PASSED_SYN, XDP_PASS, p->len, now);
	if (!st->cookies) // user space sees this count, and sets the kernel up for cookies
		return done(ctx, PRESSED_SYN, XDP_PASS, p->len, now);
	sent = answer(ctx, p);
	if (sent < 0)
		return done(ctx, COOKIE_FAILED, XDP_DROP, p->len, now);
	return done(ctx, COOKIE, XDP_TX, p->len, now);
}

SEC("xdp.frags")
int relais_filter(struct xdp_md *ctx)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	__u32 zero = 0, class = CLASS_OTHER;
	struct state *st = bpf_map_lookup_elem(&state, &zero);
	struct packet p = {};
	__u8 bits, action = 0;
	int r;

	if (!st || st->lease < now) // nobody watches over this program any more
		return XDP_PASS;
	r = parse(ctx, &p);
	if (r == NOT_IP)
		return done(ctx, PASSED_OTHER, XDP_PASS, p.len, now);
	if (r == BAD)
		return done(ctx, MALFORMED, XDP_DROP, p.len, now);
	if (r == NEIGHBOUR)
		return done(ctx, PASSED_LINK, XDP_PASS, p.len, now);
	listed_verdict(&p, now, &action);
	if (action == MANAGE)
		return done(ctx, PASSED_MANAGE, XDP_PASS, p.len, now);
	bits = p.ports ? port_bits(p.dport) : 0;
	if (action == DENY && !(p.proto == IPPROTO_TCP && bits & PORT_MANAGE))
		return done(ctx, DENIED, XDP_DROP, p.len, now);
	if (action == ALLOW)
		return done(ctx, PASSED_ALLOWED, XDP_PASS, p.len, now);
	if (martian(&p))
		return done(ctx, MARTIAN, XDP_DROP, p.len, now);
	if (p.fragment && fragments_dropped)
		return done(ctx, FRAGMENT, XDP_DROP, p.len, now);
	if (p.proto == IPPROTO_TCP && !p.fragment) {
		if (!p.syn)
			return done(ctx, PASSED, XDP_PASS, p.len, now);
		if (!source_keeps(&p, CLASS_SYN, now))
			return done(ctx, SOURCE_SYN, XDP_DROP, p.len, now);
		if (bits & PORT_MANAGE)
			return done(ctx, PASSED_SYN, XDP_PASS, p.len, now);
		return syn(ctx, &p, st, now);
	}
	if (p.proto == IPPROTO_UDP && p.ports) {
		if (port_bits(p.sport) & PORT_REFLECTS && !asked(ctx, &p))
			return done(ctx, REFLECTION, XDP_DROP, p.len, now);
		class = CLASS_UDP;
	}
	if (!source_keeps(&p, class, now))
		return done(ctx, class == CLASS_UDP ? SOURCE_UDP : SOURCE_OTHER, XDP_DROP, p.len, now);
	return done(ctx, PASSED, XDP_PASS, p.len, now);
}

// The cookie helpers are for programs under the GPL.
char terms[] SEC("license") = "GPL";
