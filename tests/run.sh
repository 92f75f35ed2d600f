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
# process namespaces of their own, so that nothing mounted or started there survives.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
required=(unit ctl origins commands main-job damage in-use doctor install hostile archives flips warm restart state requests
	real-app container kills crash-sweep power-cut model soak)
unmeasured=(unit ctl origins commands main-job damage in-use doctor hostile archives restart state requests soak)
suite_limit_s=900
full_limit_s=5400

suites=()
build=
full=no
sanitize=no
setup=yes

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

# Everything that a suite starts ends with its process namespace, and so do its mounts.
run_pytest() {
	local suite=$1 arguments=(-p no:cacheprovider -ra --tb=short -q)
	[ $full = yes ] || arguments+=(-m "not full")
	[ $sanitize = no ] || arguments+=(-m "not full and not slow_under_sanitizers")
	arguments+=("--junit-xml=$results/$suite.xml" "$(suite_file "$suite")" "${pytest_arguments[@]}")
	timeout --foreground --kill-after=30 "${DEPLOYFS_SUITE_LIMIT_S:-$suite_limit_s}" \
		unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
		bash -c '/usr/bin/python3 -m pytest "$@"; exit $?' pytest "${arguments[@]}" \
		</dev/null || echo "run.sh: suite $suite ended with $?"
}

run_suite() {
	local suite=$1 start=$SECONDS result
	echo "== $suite"
	if [ "$suite" = unit ]; then
		result=$results/unit.json
		run_unit
	else
		result=$results/$suite.xml
		run_pytest "$suite"
	fi
	read -r p f s < <(/usr/bin/python3 "$top/tests/count.py" "$result")
	echo "== $suite: $p passed, $f failed, $s skipped in $((SECONDS - start)) s"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
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
	trap 'rm -rf "$results"' EXIT
	: >"$results/figures"
	export DEPLOYFS_BUILD=$build DEPLOYFS_FIGURES=$results/figures PYTHONDONTWRITEBYTECODE=1
	export DEPLOYFS_CACHE=${DEPLOYFS_CACHE:-$top/build/apps}
	export ASAN_OPTIONS=${ASAN_OPTIONS:-allow_user_segv_handler=0:detect_leaks=1}
	export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
	build_all

	passed=0 failed=0 skipped=0
	for suite in "${suites[@]}"; do
		run_suite "$suite"
	done
	echo "== figures"
	cat "$results/figures"
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $failed -eq 0 ]
}

main "$@"
