package boot

import (
	"fmt"
	"strings"
	"time"
)

// How often systemd units must notify their watchdog, and how long a guest with such
// units is paused: over three times as long, like ten minutes to the three of Debian's
// units.
const (
	unitWatchdog = 15 * time.Second
	distroPause  = 50 * time.Second
)

// watched are Debian units that notify their watchdog.
var watched = []string{"systemd-journald", "systemd-udevd", "systemd-networkd", "systemd-logind"}

// pauseWatched pauses a Debian that is at a shell prompt: none of its units is killed
// for having been silent.
func pauseWatched(g *guest, dir, name string) {
	units, seconds := strings.Join(watched, " "), int(unitWatchdog.Seconds())
	property := "systemctl show --value --property "
	g.steps([]step{
		{fmt.Sprintf("for u in %s; do mkdir -p /run/systemd/system/$u.service.d; printf '[Service]\\nWatchdogSec=%d\\n' > /run/systemd/system/$u.service.d/w.conf; done", units, seconds), ""},
		{"systemctl daemon-reload && systemctl restart " + units + " && echo wat''ched", "watched\r\n"},
		{fmt.Sprintf("echo units=$(%s WatchdogUSec %s | grep -c ^%ds)", property, units, seconds), fmt.Sprintf("units=%d\r\n", len(watched))},
	})
	g.pauseFor(dir, name, distroPause, reading{})
	g.steps([]step{
		{fmt.Sprintf("sleep %d; echo sl''ept", seconds+1), "slept\r\n"}, // until each unit had to notify again
		{`echo timeouts=$(journalctl -b --no-pager | grep -c "Watchdog timeout")`, "timeouts=0\r\n"},
		{"echo restarts=$(" + property + "NRestarts " + units + " | tr -d '\\n')", "restarts=" + strings.Repeat("0", len(watched)) + "\r\n"},
	})
}
