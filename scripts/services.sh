#!/usr/bin/env bash
# Starts and stops Apache Kafka and a schema registry as plain processes on 127.0.0.1, for development and tests. See
# --help.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/services" && pwd)"
kafka_version=4.4.0
registry_version=2.6.13.Final
maven_dependency=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
cache="${CARBON_SERVICES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/carbon-services}"
kafka_home="$cache/kafka-$kafka_version"
registry_home="$cache/registry-$registry_version"
dir="$(realpath -m "${CARBON_SERVICES_DIR:-${TMPDIR:-/tmp}/carbon-services-$UID}")"
claims="${TMPDIR:-/tmp}/carbon-services-ports-$UID"
ready_within="${CARBON_SERVICES_TIMEOUT:-120}"
stop_within=30

help() {
    cat <<HELP
Starts and stops Apache Kafka $kafka_version (KRaft, one node) and Apicurio Registry $registry_version (the Confluent
API under /apis/ccompat/v7) as plain processes on 127.0.0.1, for development and tests. Runs on Linux; needs Java 17 or
later and python3. The first start downloads both from Maven Central, for which it needs mvn.

usage: scripts/services.sh COMMAND [kafka] [registry]     without a service: both

  up       download once, start, wait until ready, print the addresses; a service that is up stays up,
           a paused one resumes
  down     stop with SIGTERM, after $stop_within s with SIGKILL; --wipe also deletes data and logs
           (the folder keeps its port numbers)
  kill     SIGKILL, as in a crash; the data stays
  pause    SIGSTOP: the service accepts connections and never answers
  resume   SIGCONT, and wait until ready
  status   state, pid, address and memory of each service
  env      print only the export lines, for eval

environment variables and their defaults:
  CARBON_SERVICES_DIR     folder of one instance: data, logs,    \${TMPDIR:-/tmp}/carbon-services-\$UID
                          pids, ports
  CARBON_SERVICES_CACHE   downloads, shared by all instances     \${XDG_CACHE_HOME:-~/.cache}/carbon-services
  CARBON_SERVICES_TIMEOUT seconds to wait until ready            120
  KAFKA_PORT              0 selects a free port                  9092
  KAFKA_CONTROLLER_PORT   port of the KRaft controller           KAFKA_PORT + 1
  REGISTRY_PORT           0 selects a free port                  8081
  KAFKA_HEAP              -Xmx of Kafka                          512m
  REGISTRY_HEAP           -Xmx of the registry                   384m
  REGISTRY_CANONICAL_HASH see below                              true

Several instances can run at the same time if each has its own folder and ports. If a port is unset or 0, a service uses
the port that the folder stores from its last start. So a restart
keeps the port, and all other commands need only the folder.

The registry stores schemas, ids and compatibility levels in a file in its data folder, which survives kill and down.
Differences from Confluent's registry: the global compatibility level is NONE until it is set, and ids have gaps. A
schema that differs only in whitespace, key order, docs, aliases or the default of an enum counts as the existing schema
(Confluent's registry ignores only whitespace and key order). With REGISTRY_CANONICAL_HASH=false only identical text
counts as the same schema.

examples:
  scripts/services.sh up && eval "\$(scripts/services.sh env)"
  scripts/services.sh kill kafka && scripts/services.sh up kafka
  CARBON_SERVICES_DIR=\$(mktemp -d) KAFKA_PORT=0 scripts/services.sh up kafka
  scripts/services.sh down --wipe

exit: 0 done (status: all are up), 1 failed (status: one is down, paused or not ready), 2 wrong usage
HELP
}

note() { echo "services.sh: $*" >&2; }
die() { note "$@"; exit 1; }
usage() { note "$@"; note "see --help"; exit 2; }

# shellcheck source=scripts/services/fetch.sh
source "$here/fetch.sh"
# shellcheck source=scripts/services/process.sh
source "$here/process.sh"

# Prints the port of a service: of the running process, else from the environment, else from the last start, else the
# default. Prints an empty line if the port has to be selected first.
port_of() { # SERVICE
    local requested default stored
    case $1 in
    kafka) requested="${KAFKA_PORT:-}" default=9092 ;;
    registry) requested="${REGISTRY_PORT:-}" default=8081 ;;
    esac
    stored="$(cat "$dir/$1/port" 2>/dev/null || true)"
    if running "$1" && [[ -n $stored ]]; then echo "$stored"
    elif [[ -n $requested && $requested != 0 ]]; then echo "$requested"
    elif [[ -n $stored || $requested == 0 ]]; then echo "$stored"
    else echo "$default"; fi
}

controller_port() { # KAFKA-PORT
    local requested="${KAFKA_CONTROLLER_PORT:-0}"
    [[ $requested != 0 ]] && echo "$requested" || echo $(($1 + 1))
}

exports() { # SERVICE...
    local service port
    for service; do
        port="$(port_of "$service")"
        [[ -n $port ]] || die "$service has no port yet: run \`up\` first"
        case $service in
        kafka) echo "export ML_KAFKA_BROKERS=127.0.0.1:$port" ;;
        registry) echo "export ML_SCHEMA_REGISTRY_URL=http://127.0.0.1:$port/apis/ccompat/v7" ;;
        esac
    done
}

up() { # SERVICE...
    local service port requested wanted wait waits=() failed=0
    declare -A since=() was_up=() launch_failed=()
    for service; do
        port="$(port_of "$service")"
        if running "$service"; then
            requested="${service^^}_PORT"
            [[ ${!requested:-0} == 0 || ${!requested} == "$port" ]] ||
                die "$service is up on port $port, not ${!requested}: run \`down\` first"
            was_up[$service]=yes
            continue
        fi
        fetch "$service"
        find_java
        mkdir -p "$dir/$service/data"
        if [[ -z $port ]]; then
            port="$(python3 "$here/ports.py" pick 2 "$dir/$service" "$claims")" ||
                die "found no free port for $service; it was not started"
        fi
        wanted=("$port")
        [[ $service != kafka ]] || wanted+=("$(controller_port "$port")")
        python3 "$here/ports.py" free "${wanted[@]}" || die "$service was not started"
        echo "$port" >"$dir/$service/port"
    done
    # All services are launched before the first wait, so that they start in parallel.
    for service; do
        since[$service]="$(now)"
        if [[ -n ${was_up[$service]:-} ]]; then
            running "$service" && paused && kill -CONT "$pid"
            continue
        fi
        [[ ! -e $dir/$service/log ]] || mv -f "$dir/$service/log" "$dir/$service/log.1"
        : >"$dir/$service/log"
        rm -rf "$dir/$service/tmp" && mkdir "$dir/$service/tmp"
        "launch_$service" "$(<"$dir/$service/port")" ||
            { launch_failed[$service]=yes failed=1; note "$service was not started"; show_log "$service"; }
    done
    for service; do
        [[ -z ${launch_failed[$service]:-} ]] || continue
        await_ready "$service" "${was_up[$service]:+already }up" "${since[$service]}" &
        waits+=($!)
    done
    for wait in "${waits[@]}"; do wait "$wait" || failed=1; done
    [[ $failed == 0 ]] || exit 1
    exports "$@"
}

down() { # SIGNAL WIPE SERVICE...
    local service
    stop "$1" "${@:3}"
    for service in "${@:3}"; do
        [[ $2 == no ]] || (cd "$dir/$service" 2>/dev/null && rm -rf data tmp log log.1 server.properties log4j.properties) || true
        printf '%-8s  down%s\n' "$service" "$([[ $2 == no ]] || echo ", wiped")"
    done
}

pause() { # SERVICE...
    local service
    for service; do
        running "$service" || die "$service is down"
        kill -STOP "$pid"
        until paused || ended "$pid"; do sleep 0.01; done
        printf '%-8s  paused  pid %s\n' "$service" "$pid"
    done
}

resume() { # SERVICE...
    local service
    for service; do
        running "$service" || die "$service is down"
        kill -CONT "$pid"
    done
    for service; do await_ready "$service" up "$(now)" || exit 1; done
}

status() { # SERVICE...
    local service state memory code=0
    for service; do
        if ! running "$service"; then
            printf '%-8s  down\n' "$service"
            code=1
            continue
        fi
        if paused; then state=paused
        elif python3 "$here/ready.py" "$service" "$(port_of "$service")" "$pid" 0; then state=up
        else state="not ready"; fi
        memory="$(awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$pid/status" 2>/dev/null || true)"
        printf '%-8s  %s  pid %s  127.0.0.1:%s  %s MiB\n' "$service" "$state" "$pid" "$(port_of "$service")" "${memory:-?}"
        [[ $state == up ]] || code=1
    done
    return $code
}

command="" wipe=no services=()
for argument; do
    case $argument in
    -h | --help | help) help; exit 0 ;;
    kafka | registry) [[ " ${services[*]} " == *" $argument "* ]] || services+=("$argument") ;;
    --wipe) wipe=yes ;;
    up | down | kill | pause | resume | status | env)
        [[ -z $command ]] || usage "one command at a time"
        command=$argument
        ;;
    *) usage "unknown argument: $argument" ;;
    esac
done
[[ -n $command ]] || usage "no command"
[[ $wipe == no || $command == down ]] || usage "--wipe is an option of down only"
[[ ${#services[@]} -gt 0 ]] || services=(kafka registry)
for setting in KAFKA_PORT KAFKA_CONTROLLER_PORT REGISTRY_PORT CARBON_SERVICES_TIMEOUT; do
    [[ ${!setting:-0} =~ ^[0-9]{1,5}$ ]] || usage "$setting is not a number: ${!setting}"
done
# The settings of Kafka and H2 contain the folder name, and other characters have a meaning there.
[[ $dir =~ ^[A-Za-z0-9/._+@=-]+$ ]] || usage "CARBON_SERVICES_DIR may hold letters, digits and /._+@=- only: $dir"
[[ -d /proc/self ]] || die "/proc is missing: this script runs on Linux only"
command -v python3 >/dev/null || die "python3 is missing: install it (Debian and Ubuntu: apt-get install python3)"

case $command in
status) status "${services[@]}" ;;
env) exports "${services[@]}" ;;
*)
    umask 077
    mkdir -p "$dir"
    [[ -O $dir ]] || die "$dir belongs to another user; set CARBON_SERVICES_DIR"
    exec 9>"$dir/lock"
    flock -w 300 9 || die "another services.sh has held $dir/lock for 300 s"
    case $command in
    down) down TERM "$wipe" "${services[@]}" ;;
    kill) down KILL no "${services[@]}" ;;
    *) "$command" "${services[@]}" ;;
    esac
    ;;
esac
