#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Runs in the lab's guest (old_kernel_move.py): two hosts and a move there and
# back on a kernel that has soft-dirty bits only. Prints "nested: ..." lines;
# the last is "nested: done" or "nested: FAILED ...".
set -u

fail()
{
	echo "nested: FAILED $*"
	for host in a b; do
		sed "s/^/nested: log $host: /" "/tmp/$host.log"
	done
	exit 1
}

# passes HOST: how often the boot-sector guest has gone through its memory there.
passes()
{
	tr -cd . <"/tmp/$1/run/vm/k/serial.log" 2>/dev/null | wc -c
}

wait_passes()
{
	want=$(($(passes "$1") + 3))
	until [ "$(passes "$1")" -ge "$want" ]; do
		[ -d "/tmp/$1/run/vm/k" ] || fail "the guest on host $1 is gone"
		usleep 50000
	done
	case $(cat "/tmp/$1/run/vm/k/serial.log") in
	*!*) fail "the guest on host $1 found lost memory" ;;
	esac
}

# move FROM TO PORT: everything is emulated twice, so a busy host moves 1 MiB a second, and the
# downtime is long
move()
{
	/bin/godwit --root "/tmp/$1" migrate k "127.0.0.1:$3" --verify --downtime-limit 60000 >/tmp/out 2>&1 ||
		fail "move from $1 to $2: $(cat /tmp/out)"
	echo "nested: $(cat /tmp/out)"
	wait_passes "$2"
}

mkdir -p /tmp /run
mount -t tmpfs tmp /tmp
/bin/godwitd --root /tmp/a --listen 127.0.0.1:7101 --name a 2>/tmp/a.log &
/bin/godwitd --root /tmp/b --listen 127.0.0.1:7102 --name b 2>/tmp/b.log &
until [ -S /tmp/a/run/control.sock ] && [ -S /tmp/b/run/control.sock ]; do
	usleep 50000
done
echo "nested: kernel $(uname -r)"
/bin/godwit --root /tmp/a run k --memory 64M -- /usr/bin/qemu-system-x86_64 -accel tcg \
	-display none -nodefaults -serial 'file:{dir}/serial.log' \
	-drive file=/kvm.img,format=raw,if=ide >/tmp/out 2>&1 ||
	fail "run: $(cat /tmp/out)"
wait_passes a
move a b 7102
move b a 7101
/bin/godwit --root /tmp/a stop k || fail "stop"
echo "nested: done"
