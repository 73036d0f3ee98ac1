#!/bin/sh
# Installs by apt the programs that `make run` and `make test` need and this
# host lacks. It says which, and at a terminal asks first, but in continuous
# integration (CI is set). Each line: a program, the package that brings it.
set -eu

missing=
while read -r program package; do
	command -v "$program" >/dev/null || PATH=/usr/sbin:/sbin command -v "$program" >/dev/null || missing="$missing $package"
done <<LIST
go golang-go
gcc gcc
git git
qemu-system-x86_64 qemu-system-x86
iasl acpica-tools
ip iproute2
mmdebstrap mmdebstrap
mke2fs e2fsprogs
ssh openssh-client
iperf3 iperf3
LIST
# The race detector links against the C library.
[ -e /usr/include/stdlib.h ] || missing="$missing libc6-dev"

if [ -n "$missing" ]; then
	if ! command -v apt-get >/dev/null; then
		echo "deps: install what these Debian packages hold, then try again:$missing" >&2
		exit 1
	fi
	sudo=
	if [ "$(id -u)" != 0 ]; then
		if ! command -v sudo >/dev/null; then
			echo "deps: as root, run: apt-get install --no-install-recommends$missing" >&2
			exit 1
		fi
		sudo=sudo
	fi
	echo "deps: this host lacks, and by apt-get${sudo:+ with sudo} will have, these Debian packages and what they need:$missing"
	if [ -t 0 ] && [ -t 1 ] && [ -z "${CI:-}" ]; then
		printf 'deps: install them? [Y/n] '
		read -r answer || answer=n # the end of file
		case $answer in
		'' | [Yy]*) ;;
		*)
			echo "deps: nothing is installed; to do it yourself, as root: apt-get install --no-install-recommends$missing" >&2
			exit 1
			;;
		esac
	fi
	$sudo apt-get -qq update
	# shellcheck disable=SC2086 # one word each
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y $missing >/dev/null
fi

# go.mod says which Go; since 1.21 the go command fetches a newer one by itself.
if ! out=$(cd "$(dirname "$0")/.." && go list -m 2>&1); then
	echo "deps: $(go version): $out" >&2
	echo "deps: install the Go that go.mod names, or any since 1.21: https://go.dev/doc/install" >&2
	exit 1
fi
