#!/bin/bash
# Makes a container image for the real application: busybox and the libraries that its interpreter
# needs, and nothing of the application itself.
#
#   examples/make-image.sh APPDIR | docker import - base
#
# APPDIR: an unpacked or mounted version. Writes a tar archive to stdout.
set -euo pipefail

# Every library that the interpreter and its modules load, with the loader.
libraries() {
	find "$1/bin/python3" "$1"/lib/python3*/lib-dynload -type f -print0 |
		xargs -0 ldd 2>/dev/null | grep -o '/[^ ]*\.so[^ ]*' | sort -u
}

add() {
	local root=$1 library=$2
	mkdir -p "$root$(dirname "$library")"
	cp -L "$library" "$root$library"
}

main() {
	[ $# = 1 ] || { echo "usage: examples/make-image.sh APPDIR" >&2; exit 2; }
	local root library
	root=$(mktemp -d)
	trap "rm -rf '$root'" EXIT
	mkdir -p "$root"/{bin,dev,etc,proc,sys,tmp,srv/deployfs,usr/bin}
	cp "$(command -v busybox)" "$root/bin/busybox"
	for name in sh cat ls ln sleep readlink dirname env stat find sha256sum touch mkdir rm sed head; do
		ln -s busybox "$root/bin/$name"
	done
	ln -s ../../bin/env "$root/usr/bin/env"
	libraries "$1" | while read -r library; do
		[[ $library = "$1"/* ]] || add "$root" "$library"
	done
	tar -C "$root" --owner=0 --group=0 -cf - .
}

main "$@"
