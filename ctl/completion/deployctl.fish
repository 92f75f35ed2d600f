# SPDX-License-Identifier: Apache-2.0
# fish completion for deployctl

set -l verbs fetch import list flip rollback status doctor history verify repair pin unpin remove gc daemon

function __deployctl_apps
    deployctl list 2>/dev/null | awk 'NR > 1 && /^[^ ]/ { print $1 }' | sort -u
end

function __deployctl_versions
    deployctl list 2>/dev/null | awk 'NR > 1 && /^[^ ]/ { print $2 }' | sort -u
end

complete -c deployctl -f
complete -c deployctl -l json -d 'print the reply as JSON'
complete -c deployctl -l config -r -F -d 'the configuration'
complete -c deployctl -l help -d usage
complete -c deployctl -n "not __fish_seen_subcommand_from $verbs" -l version -d 'version'
complete -c deployctl -n "not __fish_seen_subcommand_from $verbs" -a "$verbs"

complete -c deployctl -n '__fish_seen_subcommand_from fetch list flip rollback history verify repair pin unpin remove' -a '(__deployctl_apps)'
complete -c deployctl -n '__fish_seen_subcommand_from flip verify repair pin unpin remove' -a '(__deployctl_versions)'
complete -c deployctl -n '__fish_seen_subcommand_from fetch' -l latest -d 'the newest version'
complete -c deployctl -n '__fish_seen_subcommand_from fetch import verify repair' -l progress -x -a 'auto bar plain json none'
complete -c deployctl -n '__fish_seen_subcommand_from import' -F
complete -c deployctl -n '__fish_seen_subcommand_from import' -l app -x -a '(__deployctl_apps)'
complete -c deployctl -n '__fish_seen_subcommand_from import' -l version -x
complete -c deployctl -n '__fish_seen_subcommand_from import' -l sha256 -x
complete -c deployctl -n '__fish_seen_subcommand_from list' -l available -d 'what the origin has'
complete -c deployctl -n '__fish_seen_subcommand_from list' -l in-use -d 'who uses each version'
complete -c deployctl -n '__fish_seen_subcommand_from flip rollback history' -l channel -x -a current
complete -c deployctl -n '__fish_seen_subcommand_from flip rollback' -s m -x -d why
complete -c deployctl -n '__fish_seen_subcommand_from flip' -l warm -d 'into memory before'
complete -c deployctl -n '__fish_seen_subcommand_from flip' -l no-warm -d 'not, whatever is configured'
complete -c deployctl -n '__fish_seen_subcommand_from status' -l warm -d 'what is in memory'
complete -c deployctl -n '__fish_seen_subcommand_from gc' -l dry-run -d 'only say'
complete -c deployctl -n '__fish_seen_subcommand_from daemon' -l force -d 'even if the mount is used'
complete -c deployctl -n '__fish_seen_subcommand_from daemon' -a 'stop reload upgrade'
