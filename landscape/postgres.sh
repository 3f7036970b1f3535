#!/usr/bin/env bash
# The private PostgreSQL server of the landscape, on loopback, with trust authentication and without fsync: for tests only.
#   postgres.sh up | down | status
#   postgres.sh exists DB        is there a database DB? (exit status)
#   postgres.sh seeded DB        is there a seeded copy of DB? (exit status)
#   postgres.sh keep DB [OWNER]  makes the present state of DB its seeded copy
#   postgres.sh reset DB [OWNER] puts DB back to its seeded copy
#   postgres.sh empty DB [OWNER] drops DB and creates it empty
#   postgres.sh role NAME        makes a user NAME, where there is none
# A seeded copy is a template database, so a reset is a copy of files. A dump beside it survives the loss of the server's data.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=env.sh
. "$here/env.sh"
[[ ${1:-} != up && ${1:-} != down ]] || alone postgres "$@"

version=15
bin=/usr/lib/postgresql/$version/bin
home=$LANDSCAPE_HOME/postgres
data=$home/data

# PostgreSQL refuses to run as root. The postgres user may be unable to enter the cache folder of root, hence the capability.
unprivileged() {
  if ((EUID == 0)); then
    setpriv --reuid=postgres --regid=postgres --init-groups --inh-caps=+dac_override --ambient-caps=+dac_override --reset-env "$@"
  else
    "$@"
  fi
}

client() { PGOPTIONS="-c client_min_messages=warning" "$bin/$1" -h 127.0.0.1 -p "$LANDSCAPE_POSTGRES_PORT" -U postgres "${@:2}"; }
sql() { client psql -qtAX -v ON_ERROR_STOP=1 -d postgres -c "$1"; }
exists() { [[ $(sql "select 1 from pg_database where datname = '$1'") == 1 ]]; }
runs() { [[ -s $data/postmaster.pid ]] && unprivileged "$bin/pg_ctl" -D "$data" status >/dev/null 2>&1; }
drop() { sql "drop database if exists \"$1\" with (force)"; }
owner() { echo "owner \"${1:-postgres}\""; }

up() {
  ! runs || return 0
  need "$bin/initdb" "postgresql-$version"
  if [[ ! -s $data/PG_VERSION ]]; then
    mkdir -p "$home"
    ((EUID != 0)) || chown postgres: "$home"
    unprivileged "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$LOG_DIR/initdb.log" 2>&1 ||
      die "initdb failed; see $LOG_DIR/initdb.log"
    cat >>"$data/postgresql.conf" <<C
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
fsync = off
full_page_writes = off
synchronous_commit = off
wal_level = minimal
max_wal_senders = 0
jit = off
C
  fi
  unprivileged "$bin/pg_ctl" -D "$data" -w -l "$home/log" -o "-p $LANDSCAPE_POSTGRES_PORT" start >/dev/null ||
    die "PostgreSQL did not start; see $home/log"
  say "postgres up on 127.0.0.1:$LANDSCAPE_POSTGRES_PORT"
}

case ${1:-} in
up) up ;;
down) ! runs || unprivileged "$bin/pg_ctl" -D "$data" -w -m fast stop >/dev/null ;;
status) if runs; then echo "postgres  up   127.0.0.1:$LANDSCAPE_POSTGRES_PORT"; else echo "postgres  down"; fi ;;
exists) exists "${2:?database}" ;;
seeded) exists "${2:?database}_seed" || [[ -s $LANDSCAPE_HOME/$2.dump ]] ;;
keep)
  database=${2:?database}
  drop "${database}_seed"
  client pg_dump -Fc -Z1 -f "$LANDSCAPE_HOME/$database.dump.new" "$database"
  mv "$LANDSCAPE_HOME/$database.dump.new" "$LANDSCAPE_HOME/$database.dump"
  sql "create database \"${database}_seed\" $(owner "${3:-}") template \"$database\" strategy file_copy"
  ;;
reset)
  database=${2:?database}
  if ! exists "${database}_seed"; then
    drop "${database}_load"
    sql "create database \"${database}_load\" $(owner "${3:-}")"
    client pg_restore -j 2 -d "${database}_load" "$LANDSCAPE_HOME/$database.dump"
    sql "alter database \"${database}_load\" rename to \"${database}_seed\""
  fi
  drop "$database"
  sql "create database \"$database\" $(owner "${3:-}") template \"${database}_seed\" strategy file_copy"
  ;;
empty) drop "${2:?database}"; sql "create database \"$2\" $(owner "${3:-}")" ;;
role) [[ $(sql "select 1 from pg_roles where rolname = '${2:?name}'") == 1 ]] || sql "create role \"$2\" login createdb" ;;
*) die "usage: postgres.sh up | down | status | exists DB | seeded DB | keep DB | reset DB | empty DB | role NAME" ;;
esac
