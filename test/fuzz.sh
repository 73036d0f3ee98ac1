#!/bin/sh
# fuzz.sh [TIME [PACKAGE...]] runs every fuzz target of the packages (default:
# all) for TIME, which is what go test -fuzztime takes: 3000x or 10s.
set -eu

time=${1:-3000x}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- ./...
GO=${GO:-go}
listed=$("$GO" test -list '^Fuzz' "$@")
printf '%s\n' "$listed" | awk '
	/^Fuzz/ { targets[n++] = $1 }
	/^ok/   { for (i = 0; i < n; i++) print $2, targets[i]; n = 0 }
' | {
	count=0
	while read -r package target; do
		count=$((count + 1))
		# The output only matters when it fails. Go also calls it a failure when an
		# input is under way as the time ends; then there is none that it wrote.
		if ! out=$("$GO" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1x "$package" 2>&1); then
			case $out in
			*"Failing input"*) fail=yes ;;
			*"context deadline exceeded"*) fail= ;;
			*) fail=yes ;;
			esac
			if [ -n "$fail" ]; then
				printf '%s\n' "$out"
				echo "fuzz: $package $target failed"
				exit 1
			fi
		fi
		echo "fuzz: $package $target: ok"
	done
	echo "fuzz: $count targets"
	[ "$count" -gt 0 ]
}
