package grpc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// free finds an address on loopback.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// certificate makes one for the origin that nobody has to trust.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"origin"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// service starts gRPC's own test service.
func service(t *testing.T, opts ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(opts...)
	testgrpc.RegisterTestServiceServer(s, interop.NewTestServer())
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// edge starts bin/relais with a file and returns where it listens, in clear and with TLS.
func edge(t *testing.T, file string, env ...string) (addr, addrTLS string) {
	t.Helper()
	binary, err := filepath.Abs("../../bin/relais")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("%v; run make build", err)
	}
	addr, addrTLS = free(t), free(t)
	var log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, "serve", "-f", file)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), append(env, "LISTEN="+addr, "LISTEN_TLS="+addrTLS, "RELAIS_DATA="+t.TempDir())...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addrTLS)
		if err == nil {
			_ = c.Close()
			return addr, addrTLS
		}
		if time.Now().After(end) {
			t.Fatal("relais does not listen")
		}
	}
}

func dial(t *testing.T, addr string, secure bool) *grpc.ClientConn {
	t.Helper()
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the edge's own CA
	}
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// cases are those of gRPC's interoperability suite that need no accounts. A case that fails
// ends the process with its message.
func cases(t *testing.T, cc *grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tc := testgrpc.NewTestServiceClient(cc)
	for name, do := range map[string]func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption){
		"empty_unary":                 interop.DoEmptyUnaryCall,
		"large_unary":                 interop.DoLargeUnaryCall,
		"client_streaming":            interop.DoClientStreaming,
		"server_streaming":            interop.DoServerStreaming,
		"ping_pong":                   interop.DoPingPong,
		"empty_stream":                interop.DoEmptyStream,
		"timeout_on_sleeping_server":  interop.DoTimeoutOnSleepingServer,
		"cancel_after_begin":          interop.DoCancelAfterBegin,
		"cancel_after_first_response": interop.DoCancelAfterFirstResponse,
		"custom_metadata":             interop.DoCustomMetadata,
		"status_code_and_message":     interop.DoStatusCodeAndMessage,
		"special_status_message":      interop.DoSpecialStatusMessage,
	} {
		t.Run(name, func(t *testing.T) {
			t.Log(name)
			do(ctx, tc)
		})
	}
	t.Run("unimplemented_method", func(*testing.T) { interop.DoUnimplementedMethod(ctx, cc) })
	t.Run("unimplemented_service", func(*testing.T) {
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(cc))
	})
	t.Run("many at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				interop.DoPingPong(ctx, tc)
				interop.DoLargeUnaryCall(ctx, tc)
			})
		}
		wg.Wait()
	})
}

func TestTheSuitePassesThroughThePlainExample(t *testing.T) {
	addr, addrTLS := edge(t, "../../examples/grpc.yaml", "ORIGIN="+service(t))
	t.Run("clear", func(t *testing.T) { cases(t, dial(t, addr, false)) })
	t.Run("TLS", func(t *testing.T) { cases(t, dial(t, addrTLS, true)) })
}

func TestTheSuitePassesWithEverythingOn(t *testing.T) {
	addr, addrTLS := edge(t, "testdata/everything.yaml", "ORIGIN="+service(t))
	t.Run("clear", func(t *testing.T) { cases(t, dial(t, addr, false)) })
	t.Run("TLS", func(t *testing.T) { cases(t, dial(t, addrTLS, true)) })
	t.Run("a silent stream outlives the pool's read timeout", func(t *testing.T) {
		stream, err := testgrpc.NewTestServiceClient(dial(t, addr, false)).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := stream.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 10}}}); err != nil {
				t.Fatal(err)
			}
			if m, err := stream.Recv(); err != nil || len(m.GetPayload().GetBody()) != 10 {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
		}
		_ = stream.CloseSend()
		if _, err := stream.Recv(); err != io.EOF {
			t.Error(err)
		}
	})
}

func TestTheSuitePassesWithTLSToTheOrigin(t *testing.T) {
	b, err := os.ReadFile("testdata/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	origin := service(t, grpc.Creds(credentials.NewServerTLSFromCert(new(certificate(t)))))
	for _, p := range []string{"h2", "auto"} {
		t.Run(p, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "edge.yaml")
			text := strings.Replace(string(b), "protocol: ${PROTOCOL:-h2c}", "protocol: "+p+"\n    tls: {insecureSkipVerify: true}", 1)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, addrTLS := edge(t, file, "ORIGIN="+origin)
			cases(t, dial(t, addrTLS, true))
		})
	}
}

func TestWhatTheEdgeRefusesIsAStatusOfGRPC(t *testing.T) {
	dead := free(t)
	addr, _ := edge(t, "testdata/everything.yaml", "ORIGIN="+dead, "RATE=3")
	tc := testgrpc.NewTestServiceClient(dial(t, addr, false))
	for i, want := range []codes.Code{codes.Unavailable, codes.Unavailable, codes.Unavailable, codes.ResourceExhausted} {
		_, err := tc.EmptyCall(t.Context(), &testgrpc.Empty{})
		if status.Code(err) != want {
			t.Errorf("call %d: %v, want %v", i, err, want)
		}
		if s, _ := status.FromError(err); !strings.Contains(s.Message(), "(") {
			t.Errorf("message %q", s.Message())
		}
	}
}
