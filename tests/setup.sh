#!/bin/bash
# Installs what building and testing need, on Debian 12 and 13, as root.
#
#   tests/setup.sh build [test] [servers] [docker] [bench]
#
# Can be repeated: it asks dpkg first and is done at once when nothing is missing. No service of a
# package is started. Where the system has no libfuse >= 3.17, its release tarball is taken from
# Debian's source package, see fill_fuse_tarball().
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
policy=/usr/sbin/policy-rc.d
cleanup=()

say() {
	echo "setup: $*"
}

die() {
	echo "setup: $*" >&2
	exit 1
}

undo() {
	local path
	for path in "${cleanup[@]}"; do
		rm -rf "$path"
	done
}

debian_release() {
	(. /etc/os-release && echo "${VERSION_ID:-13}")
}

# The packages of one group, one a line.
group_packages() {
	case $1 in
	build)
		printf '%s\n' meson ninja-build pkg-config gcc libc6-dev scdoc \
			libarchive-dev zlib1g-dev libcurl4-openssl-dev libnfs-dev libsqlite3-dev \
			libxxhash-dev libbz2-dev liblzma-dev libssl-dev libmicrohttpd-dev libjansson-dev libcyaml-dev \
			libyaml-dev libzstd-dev libsystemd-dev libcmocka-dev
		if [ "$(debian_release)" -ge 13 ]; then
			echo libfuse3-dev
		fi
		;;
	app)
		printf '%s\n' tar zstd
		;;
	test)
		printf '%s\n' git python3 python3-pytest clang clang-format strace tar zstd \
			xz-utils bzip2 zip unzip openssl curl util-linux procps python3-yaml \
			python3-prometheus-client \
			e2fsprogs mount systemd
		;;
	servers)
		printf '%s\n' python3-pyftpdlib openssh-server vsftpd nfs-ganesha \
			nfs-ganesha-vfs openssl
		;;
	bench)
		printf '%s\n' python3 curl tar gzip zstd rsync erofs-utils squashfs-tools squashfuse \
			archivemount libnfs-utils util-linux mount
		;;
	docker)
		printf '%s\n' docker.io iptables busybox-static
		if [ "$(debian_release)" -ge 13 ]; then
			echo docker-cli
		fi
		;;
	*)
		die "no group '$1': build, app, test, servers, docker, bench"
		;;
	esac
}

# Those of the named packages that are not installed, one a line.
missing_packages() {
	comm -23 <(printf '%s\n' "$@" | sort -u) \
		<(dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' "$@" 2>/dev/null |
			awk '$2 == "ii" { print $1 }' | sort -u)
}

# A package that starts its service when it is installed must not do so here.
forbid_services() {
	if [ ! -e $policy ]; then
		cleanup+=($policy)
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
	fi
}

install_packages() {
	local missing
	mapfile -t missing < <(missing_packages "$@")
	if [ ${#missing[@]} -eq 0 ]; then
		say "all $# packages are there"
		return
	fi
	[ "$(id -u)" = 0 ] || die "must be root to install: ${missing[*]}"

	say "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	forbid_services
	apt-get -q update >/dev/null || say "apt-get update had errors, going on"
	apt-get -q -y -o DPkg::Lock::Timeout=600 --no-install-recommends install "${missing[@]}" >"$log" 2>&1 </dev/null ||
		{ tail -30 "$log" >&2; die "apt-get install failed"; }
}

# The URI of the archive that this machine already gets Debian from.
debian_archive() {
	apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
		awk '$1 == "Debian" && $2 !~ /-/ { print $3; exit }'
}

# Tells apt about suite trixie's sources in $1, apart from the machine's own configuration.
private_source() {
	local dir=$1 uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	uri=$(debian_archive)
	if [ -z "$uri" ]; then
		apt-get -q update >/dev/null || true
		uri=$(debian_archive)
	fi
	[ -n "$uri" ] || return 1
	mkdir -p "$dir/lists/partial" "$dir/archives/partial"
	printf 'Types: deb-src\nURIs: %s\nSuites: trixie\nComponents: main\n' "$uri" \
		>"$dir/private.sources"
	[ ! -e $keyring ] || echo "Signed-By: $keyring" >>"$dir/private.sources"
}

download_fuse_source() {
	local dir=$1
	local options=(-q -o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$dir"
		-o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir" -o "APT::Sandbox::User=root")
	private_source "$dir" &&
		apt-get "${options[@]}" update >"$log" 2>&1 &&
		(cd "$dir" && apt-get "${options[@]}" source --download-only fuse3 >>"$log" 2>&1)
}

# libfuse >= 3.17 is in Debian 13, not in 12. meson builds it from the upstream release that
# subprojects/libfuse.wrap names; Debian's source package carries the same tarball.
fill_fuse_tarball() {
	local wrap=$top/subprojects/libfuse.wrap cache=$top/subprojects/packagecache
	local file hash dir
	if pkg-config --atleast-version=3.17 fuse3 2>/dev/null; then
		return
	fi
	file=$(sed -n 's/^source_filename = //p' "$wrap")
	hash=$(sed -n 's/^source_hash = //p' "$wrap")
	if echo "$hash  $cache/$file" | sha256sum --status -c 2>/dev/null; then
		return
	fi

	say "fetching $file from Debian's source package"
	dir=$(mktemp -d)
	cleanup+=("$dir")
	command -v dpkg-source >/dev/null || install_packages dpkg-dev
	if ! download_fuse_source "$dir"; then
		tail -5 "$log" >&2
		say "did not work: meson will try to download the release itself"
		return
	fi
	echo "$hash  $(echo "$dir"/fuse3_*.orig.tar.gz)" | sha256sum --status -c ||
		die "Debian's fuse3 source is not the release that $wrap names"
	mkdir -p "$cache"
	cp "$dir"/fuse3_*.orig.tar.gz "$cache/$file.$$"
	mv "$cache/$file.$$" "$cache/$file"
}

# nfs-ganesha finds file systems by /etc/mtab, which the smallest installations lack.
provide_mtab() {
	if [ ! -e /etc/mtab ]; then
		say "making /etc/mtab a link to /proc/self/mounts"
		ln -s ../proc/self/mounts /etc/mtab
	fi
}

main() {
	local group packages=()
	[ $# -gt 0 ] || die "usage: tests/setup.sh build|app|test|servers|docker|bench..."
	for group in "$@"; do
		mapfile -t -O ${#packages[@]} packages < <(group_packages "$group")
		group_packages "$group" >/dev/null
	done
	install_packages "${packages[@]}"
	case " $* " in
	*' build '*) fill_fuse_tarball ;;
	esac
	case " $* " in
	*' servers '*) provide_mtab ;;
	esac
}

log=$(mktemp)
cleanup+=("$log")
trap undo EXIT
main "$@"
