#!/usr/bin/env bash
# The real systems that Crossdock is tested against, on loopback: two ERPs and two storefronts with the same products.
#   landscape.sh up [NAME...]     installs, seeds and starts the named systems (all: tryton odoo vendure medusa)
#   landscape.sh down [NAME...]   stops them; without a name also their PostgreSQL
#   landscape.sh reset NAME...    back to the seeded data, and started
#   landscape.sh status
#   landscape.sh hold NAME...     for programs: waits until nobody else holds the systems, starts those that are down from
#                                 the seeded data, prints one line on stdout when all are ready, and stops those that it
#                                 started when its standard input ends, however the program that holds its other end came
#                                 to an end
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=env.sh
. "$here/env.sh"

all=(tryton odoo vendure medusa)

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

runs() { [[ $("$here/$1/$1.sh" status) == *' up '* ]]; } # NAME

hold() { # NAME...
  local name started=() postgres
  trap : INT TERM HUP # the end is that of the standard input: then what was started is stopped
  postgres=$("$here/postgres.sh" status)
  for name in "$@"; do runs "$name" || started+=("$name"); done
  if ((${#started[@]} == 0)) || "$here/landscape.sh" reset "${started[@]}" </dev/null >&2; then
    echo ready
    cat >/dev/null || true
  fi
  ((${#started[@]} == 0)) || "$here/landscape.sh" down "${started[@]}" </dev/null >/dev/null
  # Others may use it for a system that was not started here.
  if [[ $postgres == *' down'* ]] && ! runs tryton && ! runs odoo && ! runs medusa; then "$here/postgres.sh" down; fi
}

verb=${1:-}
names=("${@:2}")
if [[ $verb == hold-locked ]]; then
  hold "${names[@]}"
  exit
fi
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
  [[ " ${names[*]} " != *" vendure "* && " ${names[*]} " != *" medusa "* ]] || need npm npm
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
hold)
  ((${#names[@]} > 0)) || names=("${all[@]}")
  # The lock is flock's own (-o): the systems that are started do not inherit it.
  exec flock -o "$RUN_DIR/hold.lock" "$here/landscape.sh" hold-locked "${names[@]}"
  ;;
status)
  for name in "${all[@]}"; do "$here/$name/$name.sh" status; done
  "$here/postgres.sh" status
  ;;
*) die "usage: landscape.sh up [NAME...] | down [NAME...] | reset NAME... | status | hold [NAME...]" ;;
esac
