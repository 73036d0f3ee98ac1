package attack

import (
	"fmt"
	"time"
)

func debugTests() []test {
	t := func(name string, f func(d *driver)) test {
		return test{name, options{}, false, func(d *driver) error {
			b := time.Now()
			for range 50 {
				f(d)
			}
			fmt.Printf("DEBUG %s %v\n", name, time.Since(b)/50)
			return nil
		}}
	}
	return []test{
		t("status", func(d *driver) { d.port.status() }),
		t("notify9", func(d *driver) { d.port.notify(9) }),
		t("clear", func(d *driver) { d.mem.clear() }),
		t("intact", func(d *driver) { d.mem.intact() }),
		t("sectors", func(d *driver) { sectors(100, 2, 0) }),
		t("sleep", func(d *driver) { time.Sleep(100 * time.Microsecond) }),
		t("prepare", func(d *driver) { d.prepare(options{}) }),
		t("start", func(d *driver) { d.start(options{}) }),
		t("start+good", func(d *driver) { d.start(options{}); d.good() }),
		t("bystander", func(d *driver) { d.by.check() }),
		t("sound", func(d *driver) { d.sound(false) }),
	}
}
