#!/bin/bash
# Measures deployfs against what it could be replaced by, as ratios within one run; see docs/bench.md.
#
#   tests/bench/run.sh [--quick] [--check] [--list] [--results FILE] [--no-setup] [--no-report] [NAME...]
#
#   NAME            only these rows; --list names them
#   --quick         fewer repetitions, smaller files, only the rows that have a limit
#   --check         exit with 1 where a ratio is above its limit
#   --list          name the rows, their peers and limits
#   --results FILE  add the results to FILE, and report all that it has: for a run in several parts
#   --no-setup      do not look for packages to install
#   --no-report     do not write docs/bench.md
#
# Needs root on Debian, a disk with ext4 and some 30 GB of it: what is measured with is kept in
# $DEPLOYFS_BENCH, default /var/tmp/deployfs-bench; stores and mounts end with the run. Prints a JSON
# object a row, then a table. The build is build/, or $DEPLOYFS_BUILD.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${DEPLOYFS_BUILD:-$top/build}
setup=yes
arguments=()

die() {
	echo "run.sh: $*" >&2
	exit 2
}

parse_arguments() {
	local argument
	for argument in "$@"; do
		case $argument in
		--no-setup) setup=no ;;
		--help | -h)
			sed -n '2,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'
			exit 0
			;;
		--list)
			measure --list
			exit 0
			;;
		*) arguments+=("$argument") ;;
		esac
	done
}

measure() {
	PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$top/tests/integration DEPLOYFS_BUILD=$build \
		/usr/bin/python3 "$top/tests/bench/bench.py" "$@"
}

build_all() {
	local log=$build/bench.log
	mkdir -p "$build"
	[ -e "$build/build.ninja" ] || meson setup "$build" "$top" >"$log" ||
		{ tail -30 "$log" >&2; die "meson setup failed"; }
	ninja -C "$build" >"$log" || { tail -50 "$log" >&2; die "the build failed"; }
}

main() {
	parse_arguments "$@"
	[ "$(id -u)" = 0 ] || die "must be root: it mounts, and drops the caches"
	[ $setup = no ] || "$top/tests/setup.sh" build servers bench
	build_all
	# What is mounted and started ends with the namespaces, however this ends.
	export -f measure
	export top build
	exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
		bash -c 'measure "$@"; exit $?' bench "${arguments[@]}"
}

main "$@"
