#!/usr/bin/env bash
# Tryton 8.2 ERP (PyPI) on PostgreSQL: tryton.sh up | down | reset | status
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../env.sh
. "$here/../env.sh"
[[ ${1:-} == status ]] || alone tryton "$@"

modules=(sale stock account_invoice sale_supply sale_complaint sale_point sale_history sale_shipment_cost stock_package
  stock_quantity_issue purchase web_shop account_stock_continental)
export TRYTON_HOME=$LANDSCAPE_HOME/tryton
venv=$TRYTON_HOME/venv
url=http://127.0.0.1:$LANDSCAPE_TRYTON_PORT

install() {
  need python3 python3 python3-venv
  mkdir -p "$TRYTON_HOME"
  if ! cmp -s "$here/requirements.txt" "$TRYTON_HOME/requirements.txt"; then
    say "tryton: installing packages"
    { python3 -m venv --clear "$venv" && "$venv/bin/pip" install -q -r "$here/requirements.txt"; } >"$LOG_DIR/tryton-pip.log" 2>&1 ||
      die "cannot install Tryton (on Debian it needs python3-venv); see $LOG_DIR/tryton-pip.log"
    cp "$here/requirements.txt" "$TRYTON_HOME/"
  fi
  [[ -s $TRYTON_HOME/password ]] || (umask 077 && echo admin-password >"$TRYTON_HOME/password")
  cat >"$TRYTON_HOME/trytond.conf" <<C
[database]
uri = postgresql://postgres@127.0.0.1:$LANDSCAPE_POSTGRES_PORT/
[web]
listen = 127.0.0.1:$LANDSCAPE_TRYTON_PORT
[bus]
allow_subscribe = True
[queue]
worker = False
[session]
max_attempt = 10
C
}

# naming the database preloads its models, so that the first request is not slow
serve() { start tryton "$url/" "$venv/bin/trytond" -c "$TRYTON_HOME/trytond.conf" -d tryton; }

seed() {
  say "tryton: creating and seeding the database"
  "$here/../postgres.sh" empty tryton
  TRYTONPASSFILE=$TRYTON_HOME/password "$venv/bin/trytond-admin" -c "$TRYTON_HOME/trytond.conf" -d tryton \
    -u ir res "${modules[@]}" --activate-dependencies --email admin@example.com >"$LOG_DIR/tryton-create.log" 2>&1 ||
    die "tryton: cannot create the database; see $LOG_DIR/tryton-create.log"
  serve
  "$venv/bin/python" "$here/seed.py"
  stop tryton
  "$here/../postgres.sh" keep tryton
}

case ${1:-} in
up | reset)
  install
  "$here/../postgres.sh" up
  [[ $1 == up ]] || stop tryton KILL
  if ! is_running tryton; then
    "$here/../postgres.sh" seeded tryton || seed
    if [[ $1 == reset ]] || ! "$here/../postgres.sh" exists tryton; then "$here/../postgres.sh" reset tryton; fi
  fi
  serve
  say "tryton   $url/tryton/  user admin, password in $TRYTON_HOME/password; REST key in $TRYTON_HOME/rest.key"
  ;;
down) stop tryton ;;
status) if is_running tryton; then echo "tryton    up   $url/tryton/"; else echo "tryton    down"; fi ;;
*) die "usage: tryton.sh up | down | reset | status" ;;
esac
