// Package netlab is a network in a box: hosts in network namespaces of their own, joined by links with delay, jitter,
// loss, reordering, duplication, a rate, and cuts. It carries IP packets, so loss is loss: TCP retransmits, QUIC probes,
// and a relay of connections could show neither.
//
// A host has one TUN device, an IPv4 and an IPv6 address, and a default route into it. One goroutine reads the packets
// of all devices, keeps each for as long as its way takes, and writes it to the device of its destination. The way from
// one host to another is the sender's access link (up), then the receiver's (down), or one link of the pair where
// Lab.Link has laid one. What a link does to its packets is a Profile, which may change while packets flow.
//
//	lab, err := netlab.New(ctx, netlab.Config{Seed: 1})
//	defer lab.Close()
//	pop, err := lab.Host("pop", netlab.Profile{Delay: 20 * time.Millisecond, Loss: 0.01})
//	hub, err := lab.Host("hub", netlab.Profile{Rate: 100_000_000})
//	ln, err := hub.Listen(ctx, "tcp", ":443")             // an ordinary net.Listener
//	conn, err := pop.Dial(ctx, "tcp", "hub:443")          // names of hosts are known to Dial and Listen only
//	cmd, err := pop.Command(ctx, "relais", "serve")       // a process of the host
//	err = pop.Do(func() error { return other.Start() })   // and anything else, on a thread that is there
//	lab.CutPair(pop, hub)
//
// # What repeats
//
// Each direction of a link has generators of its own, seeded with Config.Seed and its name. Which packets are lost
// depends on their number on that link and on nothing else; likewise which are doubled or take a detour. Jitter depends
// on the time since New. What a queue drops depends on when packets come, and so on the machine.
//
// # What it costs, and how exact it is
//
// A packet costs two system calls and its way through two stacks; packets that are due at about the same time
// (Config.Grain) share a wake-up. Nothing arrives early. How late packets were beyond what the profiles ask for is
// counted (Stats.Late), and how late the goroutine itself got to run (Stats.Stall), which is also how long a packet may
// have waited before it was read. A drill looks at both, and at HostStats.Overrun, before it blames what it tests.
//
// # What it does not emulate
//
// No routers: a packet's TTL or hop limit is as it was sent, there is no ICMP from the way (unreachable, time exceeded,
// packet too big), no fragmentation, and so no MTU black holes: all links have one MTU. What nobody has the address of
// vanishes, as does multicast and broadcast. Queues drop at their tail, and do not mark (ECN) or manage themselves
// (RED, CoDel); nobody else's traffic fills them, and a rate is of IP packets without frames around them. Bytes are
// never damaged. Links do not know each other: to take a whole region away, cut its hosts. There is no name service;
// namespaces have no mounts of their own, so files, /etc/hosts, unix sockets by path and /sys are the machine's. The
// devices have no offloads, so processes pay for each segment, and all packets pass through one thread: it is for how
// systems behave on bad networks, not for how much they carry on good ones.
//
// It is Linux only, and wants root, /dev/net/tun and, for Command, nsenter(1).
package netlab
