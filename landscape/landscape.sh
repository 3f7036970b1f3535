#!/usr/bin/env bash
# The real systems that Crossdock is tested against, on loopback: an ERP and two storefronts with the same products.
#   landscape.sh up [NAME...]     installs, seeds and starts the named systems (all: tryton vendure medusa)
#   landscape.sh down [NAME...]   stops them; without a name also their PostgreSQL
#   landscape.sh reset NAME...    back to the seeded data, and started
#   landscape.sh status
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=env.sh
. "$here/env.sh"

all=(tryton vendure medusa)

# Runs the verb for all systems at once.
each() { # VERB NAME...
  local verb=$1 name job jobs=() failed=0; shift
  for name in "$@"; do
    "$here/$name/$name.sh" "$verb" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || failed=1; done
  return $failed
}

verb=${1:-}
names=("${@:2}")
for name in "${names[@]}"; do
  [[ " ${all[*]} " == *" $name "* ]] || die "unknown system $name; one of: ${all[*]}"
done
case $verb in
up | reset)
  [[ $verb == up || ${#names[@]} -gt 0 ]] || die "reset what? one of: ${all[*]}"
  ((${#names[@]} > 0)) || names=("${all[@]}")
  need curl curl
  need setpriv util-linux
  need python3 python3 python3-venv
  [[ ${names[*]} == tryton ]] || need npm npm
  [[ ${names[*]} == vendure ]] || "$here/postgres.sh" up
  each "$verb" "${names[@]}"
  ;;
down)
  if ((${#names[@]} > 0)); then
    each down "${names[@]}"
  else
    each down "${all[@]}"
    "$here/postgres.sh" down
  fi
  ;;
status)
  for name in "${all[@]}"; do "$here/$name/$name.sh" status; done
  "$here/postgres.sh" status
  ;;
*) die "usage: landscape.sh up [NAME...] | down [NAME...] | reset NAME... | status" ;;
esac
