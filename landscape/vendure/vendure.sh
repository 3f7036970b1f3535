#!/usr/bin/env bash
# Vendure 3.7 storefront (npm) on a SQLite file: vendure.sh up | down | reset | status
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../env.sh
. "$here/../env.sh"
[[ ${1:-} == status ]] || alone vendure "$@"

home=$LANDSCAPE_HOME/vendure
seeded=$home/seeded.sqlite
url=http://127.0.0.1:$LANDSCAPE_VENDURE_PORT
export VENDURE_DATA=$home/data

install() {
  need npm npm
  need python3 python3
  mkdir -p "$VENDURE_DATA"
  if ! cmp -s "$here/package.json" "$home/package.json"; then
    say "vendure: installing packages"
    cp "$here/package.json" "$home/package.json.new"
    rm -f "$home/package.json" "$home/package-lock.json"
    (cd "$home" && cp package.json.new package.json && npm install --no-audit --no-fund --loglevel=error >"$LOG_DIR/vendure-npm.log" 2>&1) ||
      { rm -f "$home/package.json"; die "npm install failed; see $LOG_DIR/vendure-npm.log"; }
    rm "$home/package.json.new"
  fi
  cp "$here/server.js" "$home/"
}

serve() { (cd "$home" && start vendure "$url/health" node server.js); }

restore() {
  rm -rf "$VENDURE_DATA"
  mkdir -p "$VENDURE_DATA"
  cp "$seeded" "$VENDURE_DATA/vendure.sqlite"
}

seed() {
  say "vendure: creating and seeding the database"
  rm -rf "$VENDURE_DATA"
  mkdir -p "$VENDURE_DATA"
  VENDURE_CREATE=yes serve
  python3 "$here/seed.py"
  stop vendure
  cp "$VENDURE_DATA/vendure.sqlite" "$seeded"
}

case ${1:-} in
up | reset)
  install
  [[ $1 == up ]] || stop vendure KILL
  if ! is_running vendure; then
    [[ -s $seeded ]] || seed
    [[ $1 == up && -s $VENDURE_DATA/vendure.sqlite ]] || restore
  fi
  serve
  say "vendure  $url/admin-api  user superadmin, password superadmin; shop customers c000@example.com ..., password customer"
  ;;
down) stop vendure ;;
status) if is_running vendure; then echo "vendure   up   $url"; else echo "vendure   down"; fi ;;
*) die "usage: vendure.sh up | down | reset | status" ;;
esac
