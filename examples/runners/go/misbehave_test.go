// go test -exec "sandcell test --disk 16M --" ./...
package misbehaving

import (
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestWritesToTheSourceTree(t *testing.T) {
	err := os.WriteFile("left-by-a-test", nil, 0o644)
	if t.Logf("source tree: %v", err); err == nil {
		t.Fatal("written to")
	}
}

func TestLeavesADaemon(t *testing.T) {
	daemon := exec.Command("sleep", "1000")
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
}

func TestBindsAFixedPort(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	t.Log("port 8080: bound")
	time.Sleep(300 * time.Millisecond)
}

func TestFillsTheDisk(t *testing.T) {
	file, err := os.Create("/tmp/filler")
	if err != nil {
		t.Fatal(err)
	}
	block, megabytes := make([]byte, 1<<20), 0
	for ; megabytes < 512; megabytes++ {
		if _, err := file.Write(block); err != nil {
			t.Logf("disk: full after %d MB", megabytes)
			return
		}
	}
	t.Fatal("filled")
}

func TestKillsItsParent(t *testing.T) {
	parent := os.Getppid()
	syscall.Kill(parent, syscall.SIGKILL)
	time.Sleep(50 * time.Millisecond)
	if t.Logf("parent: pid %d, still there", parent); os.Getppid() != parent {
		t.Fatal("gone")
	}
}
