#compdef deployctl
# SPDX-License-Identifier: Apache-2.0
# zsh completion for deployctl

_deployctl_apps() {
	local -a apps
	apps=(${(fu)"$(deployctl list 2>/dev/null | awk 'NR > 1 && /^[^ ]/ { print $1 }')"})
	compadd -a apps
}

_deployctl_versions() {
	local -a versions
	versions=(${(f)"$(deployctl list ${line[1]} 2>/dev/null | awk 'NR > 1 && /^[^ ]/ { print $2 }')"})
	compadd -a versions
}

_deployctl() {
	local curcontext=$curcontext state line
	local -a common progress channel
	common=('--json[print the reply as JSON]' '--config[the configuration]:file:_files'
		'--help[usage]')
	progress=('--progress[how far it is]:kind:(auto bar plain json none)')
	channel=('--channel[the channel]:name:(current)')

	_arguments -C $common '--version[the version of the program]' '1:command:->verb' \
		'*::argument:->rest'
	case $state in
	verb)
		compadd fetch import list flip rollback status doctor history verify repair pin \
			unpin remove gc daemon
		;;
	rest)
		case $words[1] in
		fetch) _arguments $common $progress '--latest[the newest]' \
			'1:app:_deployctl_apps' '2:version:' ;;
		import) _arguments $common $progress '--app[the application]:app:_deployctl_apps' \
			'--version[its version]:version:' '--sha256[checksum]:sum:' \
			'1:archive:_files' ;;
		list) _arguments $common '(--in-use)--available[what the origin has]' \
			'(--available)--in-use[who uses each version]' \
			'1:app:_deployctl_apps' ;;
		flip) _arguments $common $channel '-m[why]:reason:' \
			'(--no-warm)--warm[into memory before]' \
			'(--warm)--no-warm[not, whatever is configured]' '1:app:_deployctl_apps' \
			'2:version:_deployctl_versions' ;;
		rollback) _arguments $common $channel '-m[why]:reason:' \
			'1:app:_deployctl_apps' ;;
		history) _arguments $common $channel '1:app:_deployctl_apps' ;;
		verify|repair) _arguments $common $progress '1:app:_deployctl_apps' \
			'2:version:_deployctl_versions' ;;
		status) _arguments $common '--warm[what is in memory]' ;;
		pin|unpin|remove) _arguments $common '1:app:_deployctl_apps' \
			'2:version:_deployctl_versions' ;;
		gc) _arguments $common '--dry-run[only say]' ;;
		daemon) _arguments $common '--force[even if the mount is used]' \
			'1:action:(stop reload upgrade)' ;;
		*) _arguments $common ;;
		esac
		;;
	esac
}

_deployctl "$@"
