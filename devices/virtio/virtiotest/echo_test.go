package virtiotest_test

import (
	"testing"

	"vmm/devices/virtio/virtiotest"
)

func TestEcho(t *testing.T) { virtiotest.Run(t, virtiotest.EchoTarget()) }
