#!/usr/bin/env bash
# A real Apache Kafka cluster (KRaft, every node broker and controller) on loopback, from the jars of Maven Central.
#   kafka.sh up [--brokers N] [--port P] [--proxies PORT,...]
#                                          starts N nodes (1) and prints the bootstrap string, and only that, on stdout
#   kafka.sh behind                        where the nodes listen for the proxies, in their order
#   kafka.sh down                          kills the nodes and deletes their data
#   kafka.sh status                        one line for each node
#   kafka.sh kill NODE | stop NODE | cont NODE   SIGKILL, SIGSTOP, SIGCONT
#   kafka.sh restart NODE                  stops NODE in good order if it runs, starts it on its old data and port, waits
#   kafka.sh tool CLASS [ARGUMENT...]      runs org.apache.kafka.tools.CLASS, e.g. ProducerPerformance
# Node i of 1..N listens on P + 2(i-1), its controller one port higher; without --port free ports are taken.
# With --proxies, a port for each node, it listens on P + 2N + (i-1) too and tells who asks there to come to the i-th of
# those ports, where somebody listens who can hold up, drop and cut what passes.
# KAFKA_DATA_DIR    data, logs and pid files; clusters with different folders run side by side
# KAFKA_HEAP        Java heap of a node (512m)
# KAFKA_JVM         more options of the Java machine, separated by blanks
# KAFKA_PROPERTIES  more broker settings, key=value, separated by blanks or newlines
# Tests' settings: no rebalance delay, sessions from 1 s, quick compaction and transaction timeouts, no topic creation by use.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=env.sh
. "$here/env.sh"

home=$CROSSDOCK_CACHE/kafka-4.3.1
data=${KAFKA_DATA_DIR:-$CROSSDOCK_CACHE/kafka-data}
proxies=()
readonly READY_SECONDS_MAX=180

classpath() { printf '%s:' "$home"/jars/*.jar; }
uuid() { printf 'A%s' "$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c 2-22)"; }

# Everything that needs a JVM besides the nodes is done once: the metadata that a formatted node starts from, and an
# archive of loaded classes, which halves the start of a node.
install() {
  need java openjdk-17-jre-headless
  if [[ ! -d $home/jars ]]; then
    need mvn maven
    say "kafka: fetching jars"
    mkdir -p "$home"
    mvn -B -f "$here/kafka-pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$home/jars.$$" \
      >"$LOG_DIR/kafka-mvn.log" 2>&1 || die "cannot fetch Kafka; see $LOG_DIR/kafka-mvn.log"
    mv "$home/jars.$$" "$home/jars"
  fi
  [[ -s $home/classes.jsa && -s $home/bootstrap.checkpoint ]] || (prepare)
}

prepare() {
  say "kafka: preparing a quick start"
  data=$(mktemp -d)
  trap 'rm -rf "$data"' EXIT
  pick_ports 2
  configure 1 1
  java -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$(classpath)" kafka.tools.StorageTool \
    format -t "$(uuid)" -c "$data/node1.properties" >/dev/null
  cp "$data/node1/bootstrap.checkpoint" "$home/bootstrap.checkpoint.$$"
  mv "$home/bootstrap.checkpoint.$$" "$home/bootstrap.checkpoint"
  launch 1 "-XX:ArchiveClassesAtExit=$home/classes.jsa.$$"
  wait_ready 1
  terminate 1
  mv "$home/classes.jsa.$$" "$home/classes.jsa"
}

# --- one node

pid() { # of NODE if it is alive and really that node
  local pid
  [[ -s $data/node$1.pid ]] || return 1
  pid=$(<"$data/node$1.pid")
  [[ $(ps -ww -o args= -p "$pid" 2>/dev/null) == *"$data/node$1.properties" ]] && echo "$pid"
}

launch() { # NODE [JVM OPTION...]
  local node=$1; shift
  # What earlier runs of the node have said stays beside it.
  local earlier=("$data/node$node.log"*)
  [[ ! -e $data/node$node.log ]] || mv "$data/node$node.log" "$data/node$node.log.${#earlier[@]}"
  # shellcheck disable=SC2086 # one option a word
  nohup java "$@" ${KAFKA_JVM:-} "-Xmx${KAFKA_HEAP:-512m}" -XX:+UseSerialGC -Xshare:auto -Dorg.slf4j.simpleLogger.showDateTime=true \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info \
    -cp "$(classpath)" kafka.Kafka "$data/node$node.properties" >"$data/node$node.log" 2>&1 </dev/null &
  echo $! >"$data/node$node.pid"
}

wait_ready() { # NODE
  local deadline=$((SECONDS + READY_SECONDS_MAX))
  until grep -q 'Kafka Server started' "$data/node$1.log" 2>/dev/null; do
    # Not by pid(): a moment after its start the process is not java yet.
    kill -0 "$(<"$data/node$1.pid")" 2>/dev/null || { tail -n 20 "$data/node$1.log" >&2; die "kafka node $1 died; see $data/node$1.log"; }
    ((SECONDS < deadline)) || {
      send QUIT "$1" # it writes down what its threads are doing
      die "kafka node $1 is not ready after $READY_SECONDS_MAX s; see $data/node$1.log"
    }
    sleep 0.02
  done
}

send() { # SIGNAL NODE
  local pid
  pid=$(pid "$2") || die "kafka node $2 does not run"
  kill "-$1" "$pid"
}

wait_gone() { # NODE
  while pid "$1" >/dev/null; do sleep 0.02; done
}

terminate() { # NODE
  send CONT "$1"
  send TERM "$1"
  wait_gone "$1"
}

# --- the cluster

nodes() {
  local file
  for file in "$data"/node*.properties; do
    [[ ! -e $file ]] || { file=${file##*/node}; echo "${file%.properties}"; }
  done | sort -n
}

bootstrap() {
  local node
  for node in $(nodes); do address "$node" advertised.listeners PLAINTEXT; done | paste -sd, -
}

address() { # NODE SETTING LISTENER
  sed -n "s|^$2=.*$3://\([^,]*\).*|\1|p" "$data/node$1.properties" | head -n 1
}

behind() {
  local node
  for node in $(nodes); do address "$node" listeners PROXIED; done | paste -sd, -
}

configure() { # NODE NODES
  local node=$1 count=$2 own=$((port + 2 * ($1 - 1))) voters='' i
  local replicas=$((count < 3 ? count : 3)) in_sync=$((count < 3 ? 1 : 2)) listener='' advertised=''
  if ((${#proxies[@]})); then
    listener=,PROXIED://127.0.0.1:$((port + 2 * count + node - 1))
    advertised=,PROXIED://127.0.0.1:${proxies[node - 1]}
  fi
  for ((i = 1; i <= count; i++)); do voters+="${voters:+,}$i@127.0.0.1:$((port + 2 * i - 1))"; done
  mkdir -p "$data/node$node"
  cat >"$data/node$node.properties" <<P
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$own,CONTROLLER://127.0.0.1:$((own + 1))$listener
advertised.listeners=PLAINTEXT://127.0.0.1:$own$advertised
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT
log.dirs=$data/node$node
auto.create.topics.enable=false
default.replication.factor=$replicas
min.insync.replicas=$in_sync
offsets.topic.replication.factor=$replicas
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=$in_sync
transaction.state.log.num.partitions=8
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=$in_sync
share.coordinator.state.topic.num.partitions=8
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=500
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
log.cleaner.enable=true
log.cleaner.backoff.ms=500
log.cleaner.dedupe.buffer.size=16777216
P
  # shellcheck disable=SC2086 # one setting a word
  printf '%s\n' ${KAFKA_PROPERTIES:-} >>"$data/node$node.properties"
}

format() { # NODE CLUSTER_ID: what kafka.tools.StorageTool does, without its JVM
  cp "$home/bootstrap.checkpoint" "$data/node$1/"
  printf 'version=1\ncluster.id=%s\nnode.id=%s\ndirectory.id=%s\n' "$2" "$1" "$(uuid)" >"$data/node$1/meta.properties"
}

up() {
  local count=1 port='' cluster node
  while (($# > 0)); do
    case $1 in
    --brokers) count=${2:?number} ;;
    --port) port=${2:?port} ;;
    --proxies) IFS=, read -ra proxies <<<"${2:?ports}" ;;
    *) die "unknown option $1" ;;
    esac
    shift 2
  done
  { flock 9; install; } 9>"$RUN_DIR/kafka-install.lock"
  for node in $(nodes); do
    ! pid "$node" >/dev/null || die "a cluster already runs in $data: $(bootstrap)"
  done
  ((${#proxies[@]} == 0 || ${#proxies[@]} == count)) || die "$count brokers need as many proxies, not ${#proxies[@]}"
  local ports=$((2 * count + ${#proxies[@]}))
  [[ -n $port ]] || pick_ports "$ports"
  for ((node = 0; node < ports; node++)); do is_free $((port + node)) || die "port $((port + node)) is in use"; done
  clear_data
  mkdir -p "$data"
  cluster=$(uuid)
  for ((node = 1; node <= count; node++)); do
    configure "$node" "$count"
    format "$node" "$cluster"
    launch "$node" "-XX:SharedArchiveFile=$home/classes.jsa"
  done
  for ((node = 1; node <= count; node++)); do (wait_ready "$node") || { down; exit 1; }; done
  say "kafka: data in $data"
  bootstrap
}

clear_data() { rm -rf "$data"/node[0-9]*; }

down() {
  local node
  for node in $(nodes); do ! pid "$node" >/dev/null || send KILL "$node"; done
  for node in $(nodes); do wait_gone "$node"; done
  clear_data
  rmdir "$data" 2>/dev/null || true
}

status() {
  local node pid state
  [[ -n $(nodes) ]] || echo "kafka     down"
  for node in $(nodes); do
    state=down
    if pid=$(pid "$node"); then
      state=up
      [[ $(ps -o state= -p "$pid") != T* ]] || state=stopped
    fi
    printf 'kafka %-3s %-7s %s\n' "$node" "$state" "$(address "$node" advertised.listeners PLAINTEXT)"
  done
}

case ${1:-} in
up) up "${@:2}" ;;
down) down ;;
behind) behind ;;
status) status ;;
kill) send KILL "${2:?node}"; wait_gone "$2" ;;
stop) send STOP "${2:?node}" ;;
cont) send CONT "${2:?node}" ;;
restart)
  [[ -e $data/node${2:?node}.properties ]] || die "no kafka node $2 in $data"
  ! pid "$2" >/dev/null || terminate "$2"
  launch "$2" "-XX:SharedArchiveFile=$home/classes.jsa"
  wait_ready "$2"
  ;;
tool)
  { flock 9; install; } 9>"$RUN_DIR/kafka-install.lock"
  exec java -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$(classpath)" "org.apache.kafka.tools.${2:?class}" "${@:3}"
  ;;
*) die "usage: kafka.sh up [--brokers N] [--port P] [--proxies PORT,...] | down | behind | status | kill NODE | stop NODE | cont NODE | restart NODE | tool CLASS ..." ;;
esac
