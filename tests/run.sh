#!/bin/bash
# Sets up, builds, runs the tests; the last line is "N passed, N failed, N skipped".
#
#   tests/run.sh [--suite NAME]... [--list] [--full] [--build-dir DIR] [--sanitize] [--no-setup] [-- PYTEST-ARGUMENT...]
#
#   --suite NAME     only this suite; can be repeated
#   --list           name the suites
#   --full           also the tests that take long
#   --build-dir DIR  default build/, with --sanitize build-asan/
#   --sanitize       with AddressSanitizer and UndefinedBehaviorSanitizer, without the suites that measure
#   --no-setup       do not look for packages to install
#
# Suite "unit" is meson's; each other one is tests/integration/test_NAME.py. They run as root in mount and
# process namespaces of their own, so that nothing mounted or started there survives; several side by side.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
required=(hostile crash-sweep ctl metrics main-job state requests origins in-use doctor supervisor systemd damage restart real-app container
	unit bench scale power-cut model archives commands install flips warm kills soak)
unmeasured=(hostile ctl metrics main-job state requests origins in-use doctor supervisor systemd damage restart unit archives commands scale soak)
# They measure what other work on the machine would change, or empty its caches: one after the other, at the end.
alone=(flips warm kills soak)
suite_limit_s=900
full_limit_s=5400

suites=()
build=
full=no
sanitize=no
setup=yes
width=$(($(nproc) + 1)) # suites side by side: they wait more than they compute

die() {
	echo "run.sh: $*" >&2
	exit 2
}

usage() {
	sed -n '2,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

suite_file() {
	echo "$top/tests/integration/test_${1//-/_}.py"
}

check_suite() {
	case " ${required[*]} " in
	*" $1 "*) ;;
	*) die "no suite '$1': --list names them" ;;
	esac
}

parse_arguments() {
	while [ $# -gt 0 ]; do
		case $1 in
		--suite)
			[ $# -ge 2 ] || die "--suite needs a name"
			check_suite "$2"
			suites+=("$2")
			shift
			;;
		--build-dir)
			[ $# -ge 2 ] || die "--build-dir needs a directory"
			build=$(realpath -m "$2")
			shift
			;;
		--list)
			printf '%s\n' "${required[@]}"
			exit 0
			;;
		--full) full=yes ;;
		--sanitize) sanitize=yes ;;
		--no-setup) setup=no ;;
		--help | -h)
			usage
			exit 0
			;;
		--)
			shift
			break
			;;
		*) die "unknown argument '$1', see --help" ;;
		esac
		shift
	done
	pytest_arguments=("$@")
}

build_all() {
	local options=()
	if [ $sanitize = yes ]; then
		options+=(-Db_sanitize=address,undefined -Db_lundef=false)
	fi
	if [ ! -e "$build/build.ninja" ]; then
		meson setup "${options[@]}" "$build" "$top" >"$results/setup.log" ||
			{ tail -30 "$results/setup.log"; die "meson setup failed"; }
	fi
	ninja -C "$build" >"$results/build.log" || { tail -50 "$results/build.log"; die "the build failed"; }
	tail -1 "$results/build.log"
}

# cmocka prints TAP, so that its single tests can be counted in meson's log.
run_unit() {
	CMOCKA_MESSAGE_OUTPUT=TAP meson test -C "$build" --no-rebuild --suite unit --timeout-multiplier 4 \
		--print-errorlogs || true
	cp "$build/meson-logs/testlog.json" "$results/unit.json" 2>/dev/null || true
}

# Everything that a suite starts ends with its process namespace, and so do its mounts. What the machine
# itself has mounted of deployfs is not in the suite's: doctor would tell of it when it ends.
run_pytest() {
	local suite=$1 arguments=(-p no:cacheprovider -ra --tb=short -q)
	[ $full = yes ] || arguments+=(-m "not full")
	[ $sanitize = no ] || arguments+=(-m "not full and not slow_under_sanitizers")
	arguments+=("--junit-xml=$results/$suite.xml" "$(suite_file "$suite")" "${pytest_arguments[@]}")
	timeout --foreground --kill-after=30 "${DEPLOYFS_SUITE_LIMIT_S:-$suite_limit_s}" \
		unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
		bash -c 'umount --all --lazy --types fuse.deployfs; /usr/bin/python3 -m pytest "$@"; exit $?' \
		pytest "${arguments[@]}" \
		</dev/null || echo "run.sh: suite $suite ended with $?"
}

# One suite, with what it says going to its log: the last line is the summary.
run_suite() {
	local suite=$1 start=$SECONDS p f s
	if [ "$suite" = unit ]; then
		run_unit
	else
		run_pytest "$suite"
	fi
	read -r p f s < <(/usr/bin/python3 "$top/tests/count.py" "$(suite_result "$suite")")
	echo "$p $f $s" >"$results/$suite.count"
	echo "== $suite: $p passed, $f failed, $s skipped in $((SECONDS - start)) s"
}

suite_result() {
	if [ "$1" = unit ]; then
		echo "$results/unit.json"
	else
		echo "$results/$1.xml"
	fi
}

# A suite's log, once it has ended, and its numbers.
tell_suite() {
	local suite=$1 p=0 f=1 s=0
	echo "== $suite"
	cat "$results/$suite.log"
	[ ! -e "$results/$suite.count" ] || read -r p f s <"$results/$suite.count"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# At most $1 of the suites that follow at a time.
run_beside() {
	local width=$1 suite pid
	declare -A running=()
	shift
	for suite in "$@" ''; do
		while [ ${#running[@]} -ge "$width" ] || { [ -z "$suite" ] && [ ${#running[@]} -gt 0 ]; }; do
			wait -n -p pid "${!running[@]}" || true
			tell_suite "${running[$pid]}"
			unset "running[$pid]"
		done
		[ -n "$suite" ] || break
		set -m # a process group each, so that finish() can end it
		run_suite "$suite" >"$results/$suite.log" 2>&1 </dev/null &
		set +m
		running[$!]=$suite
	done
}

is_alone() {
	case " ${alone[*]} " in
	*" $1 "*) ;;
	*) return 1 ;;
	esac
}

run_all() {
	local suite beside=() last=()
	for suite in "${suites[@]}"; do
		if is_alone "$suite"; then
			last+=("$suite")
		else
			beside+=("$suite")
		fi
	done
	run_beside "$width" "${beside[@]}"
	run_beside 1 "${last[@]}"
}

# However it ends: no suite goes on.
finish() {
	local pid
	for pid in $(jobs -p); do
		kill -- "-$pid" 2>/dev/null || true
	done
	rm -rf "$results"
}

main() {
	parse_arguments "$@"
	[ "$(id -u)" = 0 ] || die "must be root: the tests mount"
	[ $full = no ] || suite_limit_s=$full_limit_s
	if [ ${#suites[@]} -eq 0 ]; then
		suites=("${required[@]}")
		[ $sanitize = no ] || suites=("${unmeasured[@]}")
	fi
	if [ -z "$build" ]; then
		build=$top/build
		[ $sanitize = no ] || build=$top/build-asan
	fi
	[ $setup = no ] || "$top/tests/setup.sh" build test servers docker

	results=$(mktemp -d)
	trap finish EXIT
	trap 'exit 130' INT TERM
	: >"$results/figures"
	export DEPLOYFS_BUILD=$build DEPLOYFS_FIGURES=$results/figures PYTHONDONTWRITEBYTECODE=1
	export DEPLOYFS_CACHE=${DEPLOYFS_CACHE:-$top/build/apps}
	export ASAN_OPTIONS=${ASAN_OPTIONS:-allow_user_segv_handler=0:detect_leaks=1}
	export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
	build_all

	passed=0 failed=0 skipped=0
	run_all
	echo "== figures"
	cat "$results/figures"
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $failed -eq 0 ]
}

main "$@"
