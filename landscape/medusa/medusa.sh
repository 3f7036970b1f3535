#!/usr/bin/env bash
# Medusa 2.21 commerce backend (npm) on PostgreSQL, without Redis: medusa.sh up | down | reset | status
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../env.sh
. "$here/../env.sh"
[[ ${1:-} == status ]] || alone medusa "$@"

home=$LANDSCAPE_HOME/medusa
url=http://127.0.0.1:$LANDSCAPE_MEDUSA_PORT
export DATABASE_URL=postgres://postgres:unused@127.0.0.1:$LANDSCAPE_POSTGRES_PORT/medusa
export MEDUSA_SECRET_KEY_FILE=$home/secret.key MEDUSA_OUTBOX=$home/outbox.jsonl
export MEDUSA_DISABLE_TELEMETRY=true NODE_ENV=production

install() {
  need npm npm
  need python3 python3
  mkdir -p "$home/src/subscribers"
  if ! cmp -s "$here/package.json" "$home/package.json"; then
    say "medusa: installing packages"
    cp "$here/package.json" "$home/package.json.new"
    rm -f "$home/package.json" "$home/package-lock.json"
    (cd "$home" && cp package.json.new package.json && npm install --no-audit --no-fund --loglevel=error >"$LOG_DIR/medusa-npm.log" 2>&1) ||
      { rm -f "$home/package.json"; die "npm install failed; see $LOG_DIR/medusa-npm.log"; }
    rm "$home/package.json.new"
  fi
  cp "$here/medusa-config.js" "$home/"
  cp "$here/outbox.js" "$home/src/subscribers/"
}

serve() { (cd "$home" && start medusa "$url/health" node_modules/.bin/medusa start -H 127.0.0.1 -p "$LANDSCAPE_MEDUSA_PORT"); }

seed() {
  say "medusa: creating and seeding the database"
  "$here/../postgres.sh" empty medusa
  (cd "$home" && node_modules/.bin/medusa db:migrate && node_modules/.bin/medusa user -e admin@example.com -p admin-password) \
    >"$LOG_DIR/medusa-create.log" 2>&1 || die "medusa: cannot create the database; see $LOG_DIR/medusa-create.log"
  serve
  python3 "$here/seed.py"
  stop medusa
  "$here/../postgres.sh" keep medusa
  rm -f "$MEDUSA_OUTBOX"
}

restore() {
  "$here/../postgres.sh" reset medusa
  rm -f "$MEDUSA_OUTBOX"
}

case ${1:-} in
up | reset)
  install
  "$here/../postgres.sh" up
  [[ $1 == up ]] || stop medusa KILL
  if ! is_running medusa; then
    "$here/../postgres.sh" seeded medusa || seed
    if [[ $1 == reset ]] || ! "$here/../postgres.sh" exists medusa; then restore; fi
  fi
  serve
  say "medusa   $url  secret API key in $MEDUSA_SECRET_KEY_FILE, shop key in $home/publishable.key; user admin@example.com, password admin-password"
  ;;
down) stop medusa ;;
status) if is_running medusa; then echo "medusa    up   $url"; else echo "medusa    down"; fi ;;
*) die "usage: medusa.sh up | down | reset | status" ;;
esac
