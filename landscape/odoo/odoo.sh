#!/usr/bin/env bash
# Odoo 19 Community, an ERP with tills (Debian's package, on a virtual environment of Python 3.11), on PostgreSQL:
#   odoo.sh up | down | reset | status
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../env.sh
. "$here/../env.sh"
[[ ${1:-} == status ]] || alone odoo "$@"

modules=sale_management,stock,account,point_of_sale,delivery
export ODOO_HOME=$LANDSCAPE_HOME/odoo LANDSCAPE_SCRIPTS=${here%/*}
venv=$ODOO_HOME/venv
url=http://127.0.0.1:$LANDSCAPE_ODOO_PORT
# Compiled once: a restart is much faster.
export PYTHONPYCACHEPREFIX=$ODOO_HOME/pycache PYTHONWARNINGS=ignore PGOPTIONS="-c client_min_messages=warning"
unset PYTHONDONTWRITEBYTECODE

# The package alone, from the suite that has it: this machine's own sources with the suite's name replaced. Nothing of it is
# installed into the system.
fetch() {
  local apt=$ODOO_HOME/apt list codename options
  mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
  codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
  { cat /etc/apt/sources.list.d/*.sources 2>/dev/null || :; } | awk -v RS= -v ORS='\n\n' -v c="$codename" \
    'match($0, "(^|\n)Suites:[^\n]*[ \t]" c "([ \t\n]|$)") {
      gsub(/(^|\n)#[^\n]*/, ""); sub(/Suites:[^\n]*/, "Suites: sid"); sub(/Components:[^\n]*/, "Components: main"); print }' >"$apt/sid.sources"
  { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || :; } |
    sed -nE "s/^(deb +(\[[^]]*\] +)?[^ ]+) +$codename +.*/\1 sid main/p" >"$apt/sid.list"
  [[ -s $apt/sid.sources ]] && list=$apt/sid.sources || list=$apt/sid.list
  options=(-o "Dir::Etc::sourcelist=$list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State=$apt/state"
    -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none)
  apt-get "${options[@]}" update -qq
  (cd "$ODOO_HOME" && apt-get "${options[@]}" download -qq odoo-19)
  # dist-packages/addons is a half copy that Odoo would find first: odoo/ alone; translations are not needed.
  mkdir -p "$ODOO_HOME/src.new"
  dpkg-deb --fsys-tarfile "$(ls "$ODOO_HOME"/odoo-19_*.deb | tail -n 1)" | tar x -C "$ODOO_HOME/src.new" --strip-components=5 \
    --exclude='*.po' --exclude='*.pot' --no-same-owner ./usr/lib/python3/dist-packages/odoo
  mv "$ODOO_HOME/src.new" "$ODOO_HOME/src"
  rm -rf "$ODOO_HOME"/odoo-19_*.deb "$apt"
}

install() {
  need python3 python3 python3-venv
  need dpkg-deb dpkg
  mkdir -p "$ODOO_HOME"
  if [[ ! -f $ODOO_HOME/src/odoo/__main__.py ]]; then
    say "odoo: fetching the package"
    rm -rf "$ODOO_HOME/src.new"
    fetch >"$LOG_DIR/odoo-apt.log" 2>&1 || die "cannot fetch Odoo; see $LOG_DIR/odoo-apt.log"
  fi
  if ! cmp -s "$here/requirements.txt" "$ODOO_HOME/requirements.txt"; then
    say "odoo: installing packages"
    python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || die "Odoo's packages are pinned for Python 3.11"
    { python3 -m venv --clear "$venv" && "$venv/bin/pip" install -q -r "$here/requirements.txt"; } >"$LOG_DIR/odoo-pip.log" 2>&1 ||
      die "cannot install Odoo's packages; see $LOG_DIR/odoo-pip.log"
    cp "$here/requirements.txt" "$ODOO_HOME/"
  fi
  cat >"$ODOO_HOME/odoo.conf" <<C
[options]
addons_path = $ODOO_HOME/src/odoo/addons
data_dir = $ODOO_HOME/data
db_host = 127.0.0.1
db_port = $LANDSCAPE_POSTGRES_PORT
db_user = odoo
db_name = odoo
dbfilter = ^odoo$
list_db = False
http_interface = 127.0.0.1
http_port = $LANDSCAPE_ODOO_PORT
workers = 0
max_cron_threads = 0
db_maxconn = 16
log_level = warn
C
}

# Odoo finds its package by the folder it is started in.
odoo() { (cd "$ODOO_HOME/src" && "$venv/bin/python" -m odoo "$@"); }
serve() {
  start odoo "$url/web/health" env -C "$ODOO_HOME/src" "$venv/bin/python" -m odoo -c "$ODOO_HOME/odoo.conf" -d odoo
}

seed() {
  say "odoo: creating and seeding the database"
  rm -rf "$ODOO_HOME/data"
  "$here/../postgres.sh" role odoo # it refuses the user postgres
  "$here/../postgres.sh" empty odoo odoo
  odoo -c "$ODOO_HOME/odoo.conf" -d odoo -i "$modules" --without-demo=True --stop-after-init >"$LOG_DIR/odoo-create.log" 2>&1 ||
    die "odoo: cannot create the database; see $LOG_DIR/odoo-create.log"
  odoo shell -c "$ODOO_HOME/odoo.conf" -d odoo --no-http <"$here/setup.py" >"$LOG_DIR/odoo-setup.log" 2>&1 || :
  [[ -s $ODOO_HOME/api.key ]] || die "odoo: cannot set up its company; see $LOG_DIR/odoo-setup.log"
  serve
  PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" "$here/seed.py"
  stop odoo
  "$here/../postgres.sh" keep odoo odoo
}

case ${1:-} in
up | reset)
  install
  "$here/../postgres.sh" up
  [[ $1 == up ]] || stop odoo KILL
  if ! is_running odoo; then
    # The key is in the database, and beside it.
    { "$here/../postgres.sh" seeded odoo && [[ -s $ODOO_HOME/api.key ]]; } || seed
    if [[ $1 == reset ]] || ! "$here/../postgres.sh" exists odoo; then
      "$here/../postgres.sh" role odoo
      "$here/../postgres.sh" reset odoo odoo
    fi
  fi
  serve
  say "odoo     $url  user admin / admin; API key in $ODOO_HOME/api.key"
  ;;
down) stop odoo ;;
status) if is_running odoo; then echo "odoo      up   $url"; else echo "odoo      down"; fi ;;
*) die "usage: odoo.sh up | down | reset | status" ;;
esac
