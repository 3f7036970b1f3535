# shellcheck shell=bash
# Common settings and helpers of the scripts in this folder: source it. Every setting can be overridden in the environment.

# Installed packages, seeded databases, data of running systems, logs and pid files: all below one folder.
CROSSDOCK_CACHE=${CROSSDOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/crossdock}
export LANDSCAPE_HOME=$CROSSDOCK_CACHE/landscape
export PYTHONDONTWRITEBYTECODE=1 # the scripts leave nothing in the checkout
export LANDSCAPE_POSTGRES_PORT=${LANDSCAPE_POSTGRES_PORT:-55432}
export LANDSCAPE_TRYTON_PORT=${LANDSCAPE_TRYTON_PORT:-8300}
export LANDSCAPE_VENDURE_PORT=${LANDSCAPE_VENDURE_PORT:-8310}
export LANDSCAPE_MEDUSA_PORT=${LANDSCAPE_MEDUSA_PORT:-8330}
export LANDSCAPE_ODOO_PORT=${LANDSCAPE_ODOO_PORT:-8340}
LOG_DIR=$LANDSCAPE_HOME/logs RUN_DIR=$LANDSCAPE_HOME/run
mkdir -p "$LOG_DIR" "$RUN_DIR"
readonly START_SECONDS_MAX=120 STOP_SECONDS_MAX=15

say() { printf '%s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
now_ms() { date +%s%3N; }

# Installs Debian packages when COMMAND is missing: need COMMAND PACKAGE...
need() {
  local command=$1; shift
  command -v "$command" >/dev/null && return
  if ((EUID == 0)) && command -v apt-get >/dev/null; then
    say "installing $*"
    # One at a time: scripts run side by side, and apt-get refuses to.
    {
      flock 9
      command -v "$command" >/dev/null || {
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
      } >"$LOG_DIR/apt.log" 2>&1 9>&- || die "cannot install $*; see $LOG_DIR/apt.log"
    } 9>"$RUN_DIR/apt.lock"
  else
    die "'$command' is missing; on Debian: apt-get install $*"
  fi
}

# Runs the script that calls it again with the same arguments, while nobody else does something to NAME: two that created
# a database side by side would drop each other's. The lock is flock's own (-o): what is started does not inherit it.
alone() { # NAME ARGUMENT...
  [[ " ${LANDSCAPE_ALONE:-} " == *" $1 "* ]] ||
    LANDSCAPE_ALONE="${LANDSCAPE_ALONE:-} $1" exec flock -o "$RUN_DIR/$1.lock" "$BASH" "$0" "${@:2}"
}

# When the process began, in clock ticks since boot: tells a process from a later one with the same id.
birth() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; } # PID

# Sets `pid` and succeeds if NAME runs.
is_running() { # NAME
  local born
  [[ -s $RUN_DIR/$1.pid ]] || return 1
  read -r pid born <"$RUN_DIR/$1.pid"
  [[ -n $born && $(birth "$pid") == "$born" ]]
}

answers() { curl -sS -o /dev/null -m 5 "$1" 2>/dev/null; } # URL

# Starts COMMAND in its own process group and waits until URL answers: start NAME URL COMMAND...
start() {
  local name=$1 url=$2 begun pid; shift 2
  if is_running "$name"; then say "$name already runs"; return; fi
  ! answers "$url" || die "something else listens at $url"
  begun=$(now_ms)
  setsid nohup "$@" >"$LOG_DIR/$name.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid $(birth "$pid")" >"$RUN_DIR/$name.pid"
  until answers "$url"; do
    kill -0 "$pid" 2>/dev/null || { tail -n 20 "$LOG_DIR/$name.log" >&2; die "$name died; see $LOG_DIR/$name.log"; }
    (($(now_ms) - begun < START_SECONDS_MAX * 1000)) || { stop "$name"; die "$name did not answer; see $LOG_DIR/$name.log"; }
    sleep 0.1
  done
  say "$name up in $(($(now_ms) - begun)) ms"
}

# Stops the process group of NAME and waits until it is gone.
stop() { # NAME [SIGNAL]
  local pid begun
  if is_running "$1"; then
    kill "-${2:-TERM}" -- "-$pid" 2>/dev/null || true
    begun=$(now_ms)
    while kill -0 -- "-$pid" 2>/dev/null; do
      (($(now_ms) - begun < STOP_SECONDS_MAX * 1000)) || kill -KILL -- "-$pid" 2>/dev/null || true
      sleep 0.05
    done
  fi
  rm -f "$RUN_DIR/$1.pid"
}

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; } # PORT

# Sets `port` to the first of N free ports in a row. They lie below the range from which systems serve outgoing
# connections, so that a server that is down keeps its port; starting from the process id keeps apart what starts together.
pick_ports() { # N
  local attempt i
  for ((attempt = 0; attempt < 200; attempt++)); do
    port=$((10000 + (($$ + attempt * 331) * 8) % 22000))
    for ((i = 0; i < $1; i++)); do is_free $((port + i)) || continue 2; done
    return
  done
  die "no free ports"
}
