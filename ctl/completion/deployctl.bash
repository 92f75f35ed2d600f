# SPDX-License-Identifier: Apache-2.0
# bash completion for deployctl

_deployctl_apps() {
	deployctl list 2>/dev/null | awk 'NR > 1 && /^[^ ]/ { print $1 }' | sort -u
}

_deployctl_versions() {
	deployctl list "$1" 2>/dev/null | awk 'NR > 1 && /^[^ ]/ { print $2 }'
}

_deployctl() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	local verb= words= i count=0 app=
	COMPREPLY=()

	case $prev in
	--config) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
	--progress) mapfile -t COMPREPLY < <(compgen -W 'auto bar plain json none' -- "$cur"); return ;;
	--app) mapfile -t COMPREPLY < <(compgen -W "$(_deployctl_apps)" -- "$cur"); return ;;
	--channel) mapfile -t COMPREPLY < <(compgen -W 'current' -- "$cur"); return ;;
	--version|--sha256|-m) return ;;
	esac

	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--config|--channel|--progress|--app|--version|--sha256|-m) return ;;
		-*) ;;
		*)
			if [[ -z $verb ]]; then
				verb=${COMP_WORDS[i]}
			else
				((count++))
				[[ $count -eq 1 ]] && app=${COMP_WORDS[i]}
			fi ;;
		esac
	done

	if [[ -z $verb ]]; then
		words='fetch import list flip rollback status doctor history verify repair pin unpin remove gc
			daemon --config --json --help --version'
	elif [[ $cur == -* ]]; then
		words='--json --config --help'
		case $verb in
		fetch) words+=' --latest --progress' ;;
		import) words+=' --app --version --sha256 --progress' ;;
		status) words+=' --warm' ;;
		list) words+=' --available --in-use' ;;
		flip) words+=' --channel -m --warm --no-warm' ;;
		rollback) words+=' --channel -m' ;;
		history) words+=' --channel' ;;
		verify|repair) words+=' --progress' ;;
		gc) words+=' --dry-run' ;;
		daemon) words+=' --force' ;;
		esac
	elif [[ $verb == import ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
	elif [[ $verb == daemon && $count -eq 0 ]]; then
		words='stop reload upgrade'
	elif [[ $verb != @(status|doctor|gc|daemon) && $count -eq 0 ]]; then
		words=$(_deployctl_apps)
	elif [[ $verb == @(flip|verify|repair|pin|unpin|remove) && $count -eq 1 ]]; then
		words=$(_deployctl_versions "$app")
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _deployctl deployctl
