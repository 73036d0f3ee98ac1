package boot

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// services are what a Debian finds in the network, and how to reach the Debian.
type services struct {
	web, proxy, iperf int // ports on the host's loopback
	ssh               int // host port forwarded to the guest's
	key               string
}

const packageBytes = "not a package, but apt does not look into what it downloads"

func newServices(t *testing.T, distro string) *services {
	t.Helper()
	s := &services{web: fileServer(t, "a file of the host"), iperf: freePort(t), ssh: freePort(t), key: filepath.Join(t.TempDir(), "key")}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.proxy = l.Addr().(*net.TCPAddr).Port
	server := &http.Server{Handler: http.HandlerFunc(proxied)}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	key, err := os.ReadFile(filepath.Join(distro, "key"))
	if err == nil {
		err = os.WriteFile(s.key, key, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	iperf := exec.Command("iperf3", "--server", "--bind", "127.0.0.1", "--port", fmt.Sprint(s.iperf))
	if err := iperf.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		iperf.Process.Kill()
		iperf.Wait()
	})
	return s
}

// proxied is an HTTP proxy for one repository with one package.
func proxied(w http.ResponseWriter, r *http.Request) {
	name := filepath.Base(r.URL.Path)
	switch {
	case r.URL.Host == "packages.test" && name == "Packages":
		fmt.Fprintf(w, "Package: proof\nVersion: 1\nArchitecture: all\nMaintainer: a test <root@localhost>\nDescription: proof\nFilename: ./proof_1_all.deb\nSize: %d\nSHA256: %x\n",
			len(packageBytes), sha256.Sum256([]byte(packageBytes)))
	case r.URL.Host == "packages.test" && strings.HasSuffix(name, ".deb"):
		io.WriteString(w, packageBytes)
	default:
		http.NotFound(w, r)
	}
}

// steps returns what the guest does in its network.
func (s *services) steps() []step {
	apt := fmt.Sprintf("apt-get -q -o Acquire::http::Proxy=http://10.0.2.2:%d -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::SourceList=/tmp/list", s.proxy)
	return []step{
		{"ip -brief -4 address", "10.0.2.15/24"},
		{fmt.Sprintf("curl --silent --show-error http://10.0.2.2:%d/", s.web), "a file of the host"},
		{"ping -c 1 -W 20 10.0.2.2", " 0% packet loss"},
		{fmt.Sprintf("iperf3 --client 10.0.2.2 --port %d --time 1", s.iperf), "iperf Done."},
		{fmt.Sprintf("iperf3 --client 10.0.2.2 --port %d --time 1 --reverse", s.iperf), "iperf Done."},
		{"echo 'deb [trusted=yes allow-insecure=yes] http://packages.test/ ./' > /tmp/list; " + apt + " update; cd /tmp; " + apt + " download proof; cat proof*.deb; cd", packageBytes},
	}
}

// login logs in to the guest from outside.
func (s *services) login() {
	ssh := s.sshCommand("hostname; head -c 1000000 /dev/zero | wc -c")
	timer := time.AfterFunc(3*patience, func() { ssh.Process.Kill() })
	defer timer.Stop()
	out, err := ssh.CombinedOutput()
	if string(out) != "debian\n1000000\n" {
		fail(true, "ssh: %v: %q", err, out)
	}
}

// sshCommand runs a command in the guest.
func (s *services) sshCommand(command string) *exec.Cmd {
	return exec.Command("ssh", "-i", s.key, "-p", fmt.Sprint(s.ssh), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60", "root@127.0.0.1", command)
}
