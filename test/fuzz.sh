#!/bin/sh
# fuzz.sh [TIME [PACKAGE...]] runs every fuzz target of the packages (default:
# all) for TIME, which is what go test -fuzztime takes: 3000x or 10s.
set -eu

export GO="${GO:-go}"

# one TIME PACKAGE TARGET runs one. Its output only matters when it fails. Go also
# calls it a failure when an input is under way as the time ends; then there is none
# that it wrote.
one() {
	if ! out=$("$GO" test -run '^$' -fuzz "^$3\$" -fuzztime "$1" -fuzzminimizetime 1x "$2" 2>&1); then
		case $out in
		*"Failing input"*) fail=yes ;;
		*"context deadline exceeded"*) fail= ;;
		*) fail=yes ;;
		esac
		if [ -n "$fail" ]; then
			printf '%s\nfuzz: %s %s failed\n' "$out" "$2" "$3"
			exit 255 # which ends xargs
		fi
	fi
	echo "fuzz: $2 $3: ok"
}
if [ "${1:-}" = one ]; then
	shift
	one "$@"
	exit
fi

time=${1:-3000x}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- ./...
# A target that is linked keeps one processor busy, so by number two run at once;
# by time each has them all.
case $time in
*x) jobs=2 ;;
*) jobs=1 ;;
esac
listed=$("$GO" test -list '^Fuzz' "$@")
targets=$(printf '%s\n' "$listed" | awk '
	/^Fuzz/ { targets[n++] = $1 }
	/^ok/   { for (i = 0; i < n; i++) print $2, targets[i]; n = 0 }
')
[ -n "$targets" ] || { echo "fuzz: no targets"; exit 1; }
printf '%s\n' "$targets" | xargs -P "$jobs" -n 2 sh "$0" one "$time" || exit 1
echo "fuzz: $(printf '%s\n' "$targets" | wc -l) targets"
