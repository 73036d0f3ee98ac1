// Package allow says how long tests wait for what should have happened long
// ago. Such a limit is there to find what hangs, not what is slow: where the
// machine is slow or busy, VMM_TIME is the factor to wait longer by, and
// `make test TIME=5` sets it.
package allow

import (
	"os"
	"strconv"
	"time"
)

// Variable is the environment variable with the factor, a decimal number; without
// it, or with one that is not positive, the factor is 1.
const Variable = "VMM_TIME"

// Time returns a limit that was chosen for two quiet cores, times the factor.
func Time(limit time.Duration) time.Duration {
	return time.Duration(float64(limit) * factor(os.Getenv(Variable)))
}

func factor(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f > 0 && f <= 1000) {
		return 1
	}
	return f
}
