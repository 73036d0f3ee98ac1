#!/bin/sh
# Makes a Debian with systemd: image.sh FOLDER, in which it leaves root.img,
# vmlinuz and initrd.img. It reads apt's sources from its standard input, and
# runs as root, or as what unshare(1) makes of a user (see main.go).
set -eu
export LC_ALL=C
cd "$1"
tree=$1/tree
PATH=$PATH:/usr/sbin:/sbin

# dbus: the power button is logind's, and logind needs the bus. What nobody
# reads in a test stays away: the image is copied for each.
mmdebstrap --quiet --mode=root --variant=minbase \
	--include=systemd,systemd-sysv,udev,dbus,kmod,linux-image-cloud-amd64,initramfs-tools,zstd,e2fsprogs \
	--include=iproute2,iputils-ping,openssh-server,openssh-client,curl,iperf3 \
	--aptopt='Apt::Install-Recommends "false"' \
	--dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	"" "$tree" -

# Root logs in without a password. A machine-id that is there but empty is
# filled at boot without the questions of a first boot (machine-id(5)).
sed -i 's/^root:[^:]*:/root::/' "$tree/etc/shadow"
echo debian >"$tree/etc/hostname"
echo "127.0.0.1 localhost debian" >"$tree/etc/hosts"
echo "/dev/vda / ext4 defaults 0 1" >"$tree/etc/fstab"
: >"$tree/etc/machine-id"
# What runs at its own time is no part of a test.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer e2scrub_reap.service; do
	ln -sf /dev/null "$tree/etc/systemd/system/$unit"
done
# After the login comes the prompt, and what is typed there is not decorated.
: >"$tree/etc/motd"
echo "set enable-bracketed-paste off" >>"$tree/etc/inputrc"

# Every network card asks for its address; who has the key may log in.
printf '[Match]\nType=ether\n[Network]\nDHCP=yes\n[DHCPv4]\nClientIdentifier=mac\n' >"$tree/etc/systemd/network/80-dhcp.network"
echo "nameserver 10.0.2.3" >"$tree/etc/resolv.conf"
ln -sf /lib/systemd/system/systemd-networkd.service "$tree/etc/systemd/system/multi-user.target.wants/"
chroot "$tree" ssh-keygen -q -t ed25519 -N "" -C test -f /root/key
mkdir -p "$tree/root/.ssh"
mv "$tree/root/key.pub" "$tree/root/.ssh/authorized_keys"
mv "$tree/root/key" key
chmod 700 "$tree/root/.ssh"

cp -L "$tree"/boot/vmlinuz-* vmlinuz
cp -L "$tree"/boot/initrd.img-* initrd.img
rm "$tree"/boot/vmlinuz-* "$tree"/boot/initrd.img-* # the VMM is the boot loader
chmod 644 vmlinuz initrd.img

# As large as it must be and 160 MiB: less to copy. Its holes are holes.
size=$(($(du -sm --apparent-size "$tree" | cut -f1) * 108 / 100 + 160))
mke2fs -q -F -t ext4 -b 4096 -m 0 -E lazy_itable_init=0,lazy_journal_init=0 -J size=8 -d "$tree" root.img "${size}M"
rm -rf "$tree"
