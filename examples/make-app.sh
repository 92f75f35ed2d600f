#!/bin/bash
# Makes a real application in two versions, out of Debian's packages: a Python with its library,
# test suite, Django, SymPy and more, some ten thousand files.
#
#   examples/make-app.sh OUTDIR
#
# Leaves OUTDIR/packages/pyapp/{pyapp-1.0.tar.zst,pyapp-1.1.tar.zst,SHA256SUMS}: what a team would
# put on its FTP server. 1.1 differs from 1.0 in a few hundred files. What was made is kept in
# build/apps (or $DEPLOYFS_CACHE), so that a second run only copies.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${DEPLOYFS_CACHE:-$top/build/apps}/pyapp-3
work=

die() {
	echo "make-app: $*" >&2
	exit 1
}

# "3.11" on Debian 12, "3.13" on Debian 13
python_version() {
	apt-cache depends python3-minimal |
		sed -n 's/^ *PreDepends: python\(3\.[0-9]*\)-minimal$/\1/p' | head -1
}

wanted_packages() {
	local v=$1
	printf '%s\n' "python$v-minimal" "libpython$v-minimal" "libpython$v-stdlib" \
		"libpython$v-testsuite" python3-django python3-asgiref python3-sqlparse \
		python3-tz python3-sympy python3-mpmath python3-babel python-babel-localedata \
		python3-pygments python3-docutils python3-setuptools python3-networkx \
		python3-botocore python3-typing-extensions
}

# Downloads without installing, and unpacks into $1. What Debian has in /usr becomes the root.
unpack_packages() {
	local tree=$1 v=$2 deb
	mkdir -p "$work/debs" "$tree"
	mapfile -t packages < <(wanted_packages "$v")
	(cd "$work/debs" && apt-get -q -o APT::Sandbox::User=root download "${packages[@]}") \
		>"$work/download.log" 2>&1 || { cat "$work/download.log" >&2; die "download failed"; }
	for deb in "$work"/debs/*.deb; do
		dpkg -x "$deb" "$tree"
	done
	cp -al "$tree/usr/." "$tree/"
	rm -r "$tree/usr"
}

# What the application's own developers add: its version, a program, a starter.
add_program() {
	local tree=$1 v=$2
	ln "$tree/bin/python$v" "$tree/bin/python3"
	mkdir -p "$tree/plugins"
	cat >"$tree/app.py" <<-'END'
		"""Says which version it is, and where it runs from, after loading a lot of its files."""
		import importlib
		import os
		import pkgutil
		import sys

		here = os.path.dirname(os.path.abspath(__file__))
		with open(os.path.join(here, "VERSION")) as f:
		    version = f.read().strip()
		for name in ("json", "email", "http.client", "asyncio", "sqlite3", "ssl", "networkx",
		             "django.core.management", "docutils.core", "pygments.lexers", "sqlparse"):
		    importlib.import_module(name)
		from mpmath import mp
		mp.dps = 30
		lexers = sum(1 for _ in pkgutil.iter_modules(sys.modules["pygments.lexers"].__path__))
		outside = [m.__file__ for m in list(sys.modules.values())
		           if getattr(m, "__file__", None) and not m.__file__.startswith(here)]
		print(f"pyapp {version}: {len(sys.modules)} modules, {lexers} lexers, pi = {mp.pi}")
		if outside:
		    sys.exit(f"loaded from outside of the package: {outside}")
	END
	cat >"$tree/run" <<-'END'
		#!/bin/sh
		# Starts app.py, or what the arguments say, with the interpreter of this version.
		here=$(dirname "$(readlink -f "$0")")
		[ $# -gt 0 ] || set -- "$here/app.py"
		PYTHONHOME=$here PYTHONDONTWRITEBYTECODE=1 exec "$here/bin/python3" "$@"
	END
	chmod 755 "$tree/run"
}

# Every 50th module gets a line, every 100th locale goes, a hundred plugins come.
upgrade() {
	local tree=$1 i
	find "$tree/lib" -name '*.py' -type f | LC_ALL=C sort | awk 'NR % 50 == 0' |
		while read -r i; do
			echo "# changed in 1.1" >>"$i"
		done
	find "$tree" -name '*.dat' -type f | LC_ALL=C sort | awk 'NR % 100 == 0' | xargs rm
	for i in $(seq 100); do
		printf '"""Plugin %s, new in 1.1."""\nNUMBER = %s\n' "$i" "$i" >"$tree/plugins/p$i.py"
	done
}

pack() {
	local tree=$1 version=$2
	echo "$version" >"$tree/VERSION"
	tar -C "$tree" --sort=name --owner=0 --group=0 --numeric-owner -cf - . |
		zstd -q -T2 -3 -o "$work/out/pyapp-$version.tar.zst"
	printf 'pyapp-%s: %s files, %s symlinks, %s directories, %s MiB, packed %s MiB\n' \
		"$version" "$(find "$tree" -type f | wc -l)" "$(find "$tree" -type l | wc -l)" \
		"$(find "$tree" -type d | wc -l)" "$(du -sm --apparent-size "$tree" | cut -f1)" \
		"$(du -sm "$work/out/pyapp-$version.tar.zst" | cut -f1)" | tee -a "$work/out/FIGURES"
	[ "$(find "$tree" -type f | wc -l)" -ge 10000 ] || die "fewer than 10,000 files"
}

make_app() {
	local v tree
	"$top/tests/setup.sh" app >/dev/null
	v=$(python_version)
	if [ -z "$v" ]; then
		apt-get -q update >/dev/null
		v=$(python_version)
	fi
	[ -n "$v" ] || die "apt knows no python3"
	mkdir -p "$(dirname "$cache")"
	work=$(mktemp -d "$cache.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	mkdir "$work/out"

	tree=$work/tree
	unpack_packages "$tree" "$v"
	add_program "$tree" "$v"
	pack "$tree" 1.0
	upgrade "$tree"
	pack "$tree" 1.1
	(cd "$work/out" && sha256sum pyapp-*.tar.zst >SHA256SUMS)
	# Another run may have been faster.
	mv -T "$work/out" "$cache" 2>/dev/null || [ -e "$cache/SHA256SUMS" ]
}

main() {
	[ $# = 1 ] || die "usage: examples/make-app.sh OUTDIR"
	if [ ! -e "$cache/SHA256SUMS" ]; then
		make_app
	else
		cat "$cache/FIGURES"
	fi
	mkdir -p "$1/packages/pyapp"
	cp "$cache"/pyapp-*.tar.zst "$cache/SHA256SUMS" "$1/packages/pyapp/"
}

main "$@"
