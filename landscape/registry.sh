#!/usr/bin/env bash
# A real schema registry with the Confluent REST API (Apicurio Registry 2.6.13, in memory) on loopback.
#   registry.sh up [--port P]   starts it on P or a free port and prints the base URL, and only that, on stdout
#   registry.sh down | status
# REGISTRY_DATA_DIR  log and pid file; registries with different folders run side by side
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=env.sh
. "$here/env.sh"

version=2.6.13
home=$CROSSDOCK_CACHE/apicurio-$version
data=${REGISTRY_DATA_DIR:-$CROSSDOCK_CACHE/registry-data}
readonly READY_SECONDS_MAX=60

install() {
  local fetched
  need java openjdk-17-jre-headless
  need curl curl
  if [[ ! -d $home/app ]]; then
    need mvn maven
    say "registry: fetching jars"
    fetched=$home/app.$$
    mkdir -p "$fetched"
    mvn -B dependency:copy -Dartifact=io.apicurio:apicurio-registry-app:$version.Final:tar.gz:all -DoutputDirectory="$fetched" \
      >"$LOG_DIR/registry-mvn.log" 2>&1 || die "cannot fetch the registry; see $LOG_DIR/registry-mvn.log"
    tar xzf "$fetched"/*.tar.gz -C "$fetched"
    rm "$fetched"/*.tar.gz
    mv "$fetched" "$home/app"
  fi
  [[ -s $home/classes.jsa ]] || (prepare)
}

# An archive of loaded classes makes later starts three times as fast.
prepare() {
  say "registry: preparing a quick start"
  data=$(mktemp -d)
  trap 'rm -rf "$data"' EXIT
  pick_ports 1
  launch "-XX:ArchiveClassesAtExit=$home/classes.jsa.$$"
  wait_ready
  kill "$(pid)"
  wait_gone
  mv "$home/classes.jsa.$$" "$home/classes.jsa"
}

pid() { # if it is alive and really the registry
  local pid
  [[ -s $data/registry.pid ]] || return 1
  pid=$(<"$data/registry.pid")
  [[ $(ps -ww -o args= -p "$pid" 2>/dev/null) == *apicurio-registry* ]] && echo "$pid"
}

wait_gone() {
  while pid >/dev/null; do sleep 0.02; done
}

launch() { # JVM OPTION...
  echo "http://127.0.0.1:$port/apis/ccompat/v7" >"$data/registry.url"
  nohup java "$@" -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -Dquarkus.http.host=127.0.0.1 \
    -Dquarkus.http.port="$port" -jar "$home/app/apicurio-registry-app-$version.Final-runner.jar" \
    >"$data/registry.log" 2>&1 </dev/null &
  echo $! >"$data/registry.pid"
}

wait_ready() {
  local deadline=$((SECONDS + READY_SECONDS_MAX))
  until curl -fsS "$(<"$data/registry.url")/subjects" >/dev/null 2>&1; do
    # Not by pid(): a moment after its start the process is not java yet.
    kill -0 "$(<"$data/registry.pid")" 2>/dev/null || { tail -n 20 "$data/registry.log" >&2; die "the registry died; see $data/registry.log"; }
    ((SECONDS < deadline)) || die "the registry is not ready after $READY_SECONDS_MAX s; see $data/registry.log"
    sleep 0.05
  done
}

case ${1:-} in
up)
  port=
  [[ ${2:-} != --port ]] || port=${3:?port}
  { flock 9; install; } 9>"$RUN_DIR/registry-install.lock"
  ! pid >/dev/null || die "a registry already runs: $(<"$data/registry.url")"
  [[ -z $port ]] || is_free "$port" || die "port $port is in use"
  mkdir -p "$data"
  [[ -n $port ]] || pick_ports 1
  launch "-XX:SharedArchiveFile=$home/classes.jsa"
  wait_ready
  cat "$data/registry.url"
  ;;
down)
  if pid=$(pid); then
    kill -KILL "$pid"
    wait_gone
  fi
  rm -f "$data"/registry.{pid,url,log}
  rmdir "$data" 2>/dev/null || true
  ;;
status) if pid >/dev/null; then echo "registry  up      $(<"$data/registry.url")"; else echo "registry  down"; fi ;;
*) die "usage: registry.sh up [--port P] | down | status" ;;
esac
