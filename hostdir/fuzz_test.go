package hostdir

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// FuzzLoad: a state is untrusted bytes. Whatever it contains, nothing outside the
// root is opened, and what was loaded can be used, saved and dropped.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"Last":3,"Nodes":[{"ID":2,"Path":"ZmlsZQ==","Kind":32768,"Lookups":1}],"Handles":[{"ID":3,"Path":"ZmlsZQ==","Flags":2}]}`))
	f.Add([]byte(`{"Last":4,"Handles":[{"ID":3,"Root":true,"Dir":true},{"ID":4,"Path":"Li4vc2VjcmV0","Flags":0}]}`))
	f.Add(fmt.Appendf(nil, `{"Last":2,"Nodes":[{"ID":2,"Path":%q,"Kind":%d,"Lookups":18446744073709551615}]}`, encode("link/secret"), unix.S_IFREG))
	f.Fuzz(func(t *testing.T, b []byte) {
		g := share(t, Options{Files: 20})
		write(t, filepath.Join(g.host, "file"), "text")
		if err := os.Symlink("..", filepath.Join(g.host, "link")); err != nil {
			t.Fatal(err)
		}
		if g.Load(b) != nil {
			return
		}
		for id := uint64(1); id <= min(g.last, 20); id++ {
			buf := make([]byte, 100)
			if n, s := g.ReadInto(id, [][]byte{buf}, 0); s.Ok() && n > 0 && string(buf[:n]) != "text" {
				t.Errorf("handle %d reads %q", id, buf[:n])
			}
			g.GetAttr(nil, &fuse.GetAttrIn{InHeader: head(id)}, new(fuse.AttrOut))
			g.tryLookup(id, "secret")
		}
		if _, err := g.Save(); err != nil {
			t.Error(err)
		}
		g.Reset()
		if g.open != 0 {
			t.Errorf("%d descriptors are left", g.open)
		}
		g.intact()
	})
}
