#!/bin/bash
# Builds deployfs and shows its main job on a real application, as a transcript: two versions are
# published, fetched, used through the mount, flipped and rolled back.
#
#   examples/quickstart.sh [--origin dir|ftp|nfs] [--docker] [--keep] [--dir DIR]
#
#   --origin KIND  where packages come from: a directory (default), or an FTP or NFS server that
#                  is installed and started on 127.0.0.1 for this
#   --docker       run the application in a real container, too
#   --keep         leave everything running at the end, and say how to use and stop it
#   --dir DIR      a new or empty directory for everything; default: a temporary one
#
# Needs root on Debian 12 or 13 and installs what it needs. Without --keep it leaves nothing behind
# but the build.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
origin=dir
docker=no
keep=no
dir=
daemon_pid=
server_pid=
engine_pid=

say() {
	echo "quickstart: $*"
}

die() {
	echo "quickstart: $*" >&2
	exit 1
}

usage() {
	sed -n '2,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

parse_arguments() {
	while [ $# -gt 0 ]; do
		case $1 in
		--origin)
			[ $# -ge 2 ] || die "--origin needs dir, ftp or nfs"
			case $2 in
			dir | ftp | nfs) origin=$2 ;;
			*) die "no origin '$2': dir, ftp, nfs" ;;
			esac
			shift
			;;
		--dir)
			[ $# -ge 2 ] || die "--dir needs a directory"
			dir=$(realpath -m "$2")
			shift
			;;
		--docker) docker=yes ;;
		--keep) keep=yes ;;
		--help | -h)
			usage
			exit 0
			;;
		*) die "unknown argument '$1', see --help" ;;
		esac
		shift
	done
}

# -- the end, however it comes about ------------------------------------------------------

end_process() {
	local pid=$1
	[ -n "$pid" ] || return 0
	kill "$pid" 2>/dev/null || return 0
	wait "$pid" 2>/dev/null || true
}

stop_all() {
	if [ -n "$engine_pid" ]; then
		docker kill app >/dev/null 2>&1 || true
		end_process "$engine_pid"
	fi
	if [ -n "$daemon_pid" ]; then
		deployctl daemon stop --force >/dev/null 2>&1 || kill "$daemon_pid" 2>/dev/null || true
		wait "$daemon_pid" 2>/dev/null || true
	fi
	end_process "$server_pid"
	awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | tac |
		while read -r place; do
			umount -l "$place" || true
		done
	rm -rf "$dir"
}

show_logs() {
	local log
	for log in "$dir"/{server,dockerd,deployfsd}.log; do
		if [ -s "$log" ]; then
			say "the end of $log:"
			tail -20 "$log"
		fi
	done
}

finish() {
	local code=$?
	trap - EXIT INT TERM
	cd /
	if [ $code != 0 ]; then
		show_logs >&2
	fi
	if [ $code != 0 ] || [ $keep = no ]; then
		stop_all
	fi
	exit $code
}

explain_keep() {
	cat <<-END

	Everything runs on. To use it:
	  export DEPLOYFS_CONFIG=$DEPLOYFS_CONFIG
	  export PATH=$top/build/ctl:\$PATH
	  deployctl status
	  $dir/mnt/apps/pyapp/current/run
	To stop it:
	END
	[ -z "$engine_pid" ] || echo "  kill $engine_pid    # dockerd, with its container"
	echo "  deployctl daemon stop"
	[ -z "$server_pid" ] || echo "  kill $server_pid    # the origin's server"
	echo "  rm -rf $dir"
}

# -- the parts ----------------------------------------------------------------------------

# Shows a command as it would be typed, runs it, and keeps what it printed in $out.
step() {
	local code=0
	echo
	echo "\$ $1"
	eval "$1" >"$dir/out" 2>&1 || code=$?
	out=$(cat "$dir/out")
	[ -z "$out" ] || echo "$out"
	[ $code = 0 ] || die "this failed with exit code $code: $1"
}

expect() {
	[[ $out = $1 ]] || die "expected '$1'"
}

wait_for() {
	local try
	for try in $(seq 300); do
		if "$@" >/dev/null 2>&1; then
			return 0
		fi
		sleep 0.1
	done
	die "gave up waiting for: $*"
}

listens() {
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

free_port() {
	local port
	while true; do
		port=$((20000 + RANDOM % 12000))
		listens $port || break
	done
	echo $port
}

build() {
	local groups=(build app)
	[ $origin = dir ] || groups+=(servers)
	[ $docker = no ] || groups+=(docker)
	"$top/tests/setup.sh" "${groups[@]}"
	mkdir -p "$top/build"
	exec 9>"$top/build/quickstart.lock"
	flock 9
	if [ ! -e "$top/build/build.ninja" ]; then
		say "configuring build/"
		meson setup "$top/build" "$top" >"$dir/build.log" 2>&1 ||
			{ tail -20 "$dir/build.log"; die "meson setup failed"; }
	fi
	say "building"
	ninja -C "$top/build" >"$dir/build.log" 2>&1 ||
		{ tail -30 "$dir/build.log"; die "the build failed"; }
	say "making the application: a Python with Django, SymPy and more, in two versions"
	"$top/examples/make-app.sh" "$dir/made"
	exec 9>&-
}

start_vsftpd() {
	mkdir "$dir/empty"
	cat >"$dir/vsftpd.conf" <<-END
		listen=YES
		listen_ipv6=NO
		listen_address=127.0.0.1
		listen_port=$1
		background=NO
		anonymous_enable=YES
		local_enable=NO
		no_anon_password=YES
		ftp_username=ftp
		anon_world_readable_only=NO
		anon_root=$dir/packages
		secure_chroot_dir=$dir/empty
		seccomp_sandbox=NO
		isolate_network=NO
		connect_from_port_20=NO
		vsftpd_log_file=$dir/vsftpd.log
	END
	setsid vsftpd "$dir/vsftpd.conf" >"$dir/server.log" 2>&1 </dev/null &
	server_pid=$!
}

start_ganesha() {
	mkdir "$dir/ganesha"
	cat >"$dir/ganesha.conf" <<-END
		NFS_CORE_PARAM {
			NFS_Port = $1; Bind_addr = 127.0.0.1; Protocols = 4;
			Enable_NLM = false; Enable_RQUOTA = false; allow_set_io_flusher_fail = true;
		}
		NFSv4 {
			Graceless = true; RecoveryRoot = "$dir/ganesha"; RecoveryBackend = fs;
			Minor_Versions = 0, 1, 2; Only_Numeric_Owners = true;
		}
		NFS_KRB5 { Active_krb5 = false; }
		EXPORT {
			Export_Id = 1; Path = "$dir/packages"; Pseudo = "/export"; Protocols = 4;
			Transports = TCP; Access_Type = RO; Squash = None; SecType = sys, none;
			PrivilegedPort = false; FSAL { Name = VFS; }
		}
	END
	setsid ganesha.nfsd -F -f "$dir/ganesha.conf" -L "$dir/server.log" -p "$dir/ganesha.pid" \
		-N NIV_EVENT </dev/null >/dev/null 2>&1 &
	server_pid=$!
}

# Starts the origin's server, if it needs one, and tells its URL in $url.
start_origin() {
	local port
	mkdir -p "$dir/packages/pyapp"
	case $origin in
	dir) url=$dir/packages ;;
	ftp)
		port=$(free_port)
		start_vsftpd "$port"
		wait_for listens "$port"
		url=ftp://127.0.0.1:$port
		;;
	nfs)
		port=$(free_port)
		start_ganesha "$port"
		wait_for listens "$port"
		url=nfs://127.0.0.1:$port/export
		;;
	esac
}

answers_or_ended() {
	deployctl status || ! kill -0 "$daemon_pid"
}

start_daemon() {
	cat >"$dir/deployfs.yaml" <<-END
		origin: $url
		mount: $dir/mnt
		store: $dir/store
		runtime: $dir/run
	END
	export DEPLOYFS_CONFIG=$dir/deployfs.yaml
	export PATH=$top/build/fs:$top/build/ctl:$PATH
	step "cat $dir/deployfs.yaml"
	echo
	echo "\$ deployfsd --config $dir/deployfs.yaml &"
	setsid deployfsd --config "$dir/deployfs.yaml" >"$dir/deployfsd.log" 2>&1 </dev/null &
	daemon_pid=$!
	wait_for answers_or_ended
	kill -0 $daemon_pid 2>/dev/null || die "deployfsd ended at once"
}

main_job() {
	say "A team publishes two versions: archives, and their checksums beside them."
	cd "$dir/packages/pyapp"
	step "cp $dir/made/packages/pyapp/pyapp-1.0.tar.zst ."
	step "cp $dir/made/packages/pyapp/pyapp-1.1.tar.zst ."
	step "sha256sum pyapp-*.tar.zst >SHA256SUMS; cat SHA256SUMS"
	cd "$dir"

	echo
	say "On the host, the whole configuration is the first of these lines; the others keep this trial apart."
	start_daemon

	echo
	say "Fetch both and look at them: nothing is in use yet."
	step "deployctl fetch pyapp 1.0"
	step "deployctl fetch pyapp --latest"
	step "deployctl list pyapp"
	step "ls mnt/apps/pyapp mnt/apps/pyapp/1.0"

	echo
	say "Point 'current' at 1.0, and run the interpreter through the mount."
	step "deployctl flip pyapp 1.0 -m 'first deployment'"
	step "mnt/apps/pyapp/current/run"
	expect "pyapp 1.0: *"

	echo
	say "Upgrade: one command, at once, for everybody."
	step "deployctl flip pyapp 1.1 -m 'ticket 17'"
	step "mnt/apps/pyapp/current/run"
	expect "pyapp 1.1: *"

	echo
	say "And back."
	step "deployctl rollback pyapp -m 'it was slow'"
	step "mnt/apps/pyapp/current/run"
	expect "pyapp 1.0: *"
	step "deployctl history pyapp"
	step "deployctl list pyapp"
	step "deployctl status"
}

start_engine() {
	setsid /usr/sbin/dockerd --data-root "$dir/docker/data" --exec-root "$dir/docker/exec" \
		--pidfile "$dir/docker/pid" --host "unix://$dir/docker/sock" --bridge=none \
		--iptables=false --ip6tables=false >"$dir/dockerd.log" 2>&1 </dev/null &
	engine_pid=$!
	export DOCKER_HOST=unix://$dir/docker/sock
	wait_for docker version
}

# Debian's client: another one may come first on PATH.
docker() {
	/usr/bin/docker "$@"
}

container() {
	echo
	say "The same in a container: it sees each flip without a restart."
	mkdir "$dir/docker"
	start_engine
	step "$top/examples/make-image.sh $dir/mnt/apps/pyapp/1.0 | docker import - base"
	step "docker run -d --rm --name app --network none -v $dir/mnt:/srv/deployfs:rslave base /bin/sleep 100000"
	step "docker exec app /srv/deployfs/apps/pyapp/current/run"
	expect "pyapp 1.0: *"
	step "deployctl flip pyapp 1.1"
	step "docker exec app /srv/deployfs/apps/pyapp/current/run"
	expect "pyapp 1.1: *"
	step "deployctl rollback pyapp"
	step "docker exec app /srv/deployfs/apps/pyapp/current/run"
	expect "pyapp 1.0: *"
	step "docker exec app touch /srv/deployfs/apps/pyapp/new 2>&1 || true"
	expect "*Read-only file system*"
	if [ $keep = no ]; then
		step "docker kill app"
	fi
}

main() {
	parse_arguments "$@"
	[ "$(id -u)" = 0 ] || die "must be root: it installs packages and mounts"
	if [ -z "$dir" ]; then
		dir=$(mktemp -d /tmp/deployfs-quickstart.XXXXXX)
	elif [ -e "$dir" ] && [ -n "$(ls -A "$dir")" ]; then
		die "$dir is not empty"
	fi
	mkdir -p "$dir"
	chmod 755 "$dir"
	trap finish EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM

	build
	start_origin
	main_job
	[ $docker = no ] || container
	[ $keep = no ] || explain_keep
	echo
	echo "quickstart: ok"
}

main "$@"
