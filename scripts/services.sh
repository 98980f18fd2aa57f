#!/usr/bin/env bash
# Apache Kafka and a schema registry as plain processes on loopback, for development and tests. See --help.
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
Apache Kafka $kafka_version (KRaft, one node) and Apicurio Registry $registry_version (the Confluent API under
/apis/ccompat/v7) as plain processes on 127.0.0.1, for development and tests. Linux; needs Java 17 or later and
python3, and for the first fetch from Maven Central mvn.

usage: scripts/services.sh COMMAND [kafka] [registry]     none named: both

  up       fetch once, start, wait until ready, print the addresses; says so of what is up already
  down     stop (TERM, after $stop_within s KILL); with --wipe delete data and logs too, the ports stay remembered
  kill     SIGKILL, data kept: a crash
  pause    SIGSTOP: connections are accepted and never answered
  resume   SIGCONT, and wait until ready
  status   state, pid, address and memory of each
  env      only the export lines, for eval

settings, by environment:
  CARBON_SERVICES_DIR     data, logs, pids, ports of one copy    \${TMPDIR:-/tmp}/carbon-services-\$UID
  CARBON_SERVICES_CACHE   downloads, shared by all copies        \${XDG_CACHE_HOME:-~/.cache}/carbon-services
  CARBON_SERVICES_TIMEOUT seconds until ready                    120
  KAFKA_PORT              0 picks a free one                     9092
  KAFKA_CONTROLLER_PORT                                          KAFKA_PORT + 1
  REGISTRY_PORT           0 picks a free one                     8081
  KAFKA_HEAP              -Xmx of Kafka                          512m
  REGISTRY_HEAP           -Xmx of the registry                   384m
  REGISTRY_CANONICAL_HASH see below                              true

Copies with folders and ports of their own run side by side. A port that is unset or 0 is the one that the folder
used last, where it has been used, so a restart comes up where it was, and status, env, down and the rest need
nothing but the folder.

The registry keeps schemas, ids and levels in a file under its data folder; they outlive kill and down. It differs
from Confluent's: the global compatibility is NONE until set, and ids have gaps. A schema that differs only in
whitespace, the order of keys, docs, aliases or an enum's default counts as the one that is there already
(Confluent's ignores only the first two); with REGISTRY_CANONICAL_HASH=false only the exact text does.

examples:
  scripts/services.sh up && eval "\$(scripts/services.sh env)"
  scripts/services.sh kill kafka && scripts/services.sh up kafka
  CARBON_SERVICES_DIR=\$(mktemp -d) KAFKA_PORT=0 scripts/services.sh up kafka
  scripts/services.sh down --wipe

exit: 0 done (status: all named are up), 1 failed (status: one is down, paused or not ready), 2 wrong usage
HELP
}

note() { echo "services.sh: $*" >&2; }
die() { note "$@"; exit 1; }
usage() { note "$@"; note "try --help"; exit 2; }

# shellcheck source=scripts/services/fetch.sh
source "$here/fetch.sh"
# shellcheck source=scripts/services/process.sh
source "$here/process.sh"

# Where it runs, else what was asked for, else what it had before, else the default; empty: not picked yet.
port_of() { # SERVICE
    local asked default kept
    case $1 in
    kafka) asked="${KAFKA_PORT:-}" default=9092 ;;
    registry) asked="${REGISTRY_PORT:-}" default=8081 ;;
    esac
    kept="$(cat "$dir/$1/port" 2>/dev/null || true)"
    if running "$1" && [[ -n $kept ]]; then echo "$kept"
    elif [[ -n $asked && $asked != 0 ]]; then echo "$asked"
    elif [[ -n $kept || $asked == 0 ]]; then echo "$kept"
    else echo "$default"; fi
}

controller_port() { # KAFKA-PORT
    local asked="${KAFKA_CONTROLLER_PORT:-0}"
    [[ $asked != 0 ]] && echo "$asked" || echo $(($1 + 1))
}

exports() { # SERVICE...
    local service port
    for service; do
        port="$(port_of "$service")"
        [[ -n $port ]] || die "$service has no port yet: run up first"
        case $service in
        kafka) echo "export ML_KAFKA_BROKERS=127.0.0.1:$port" ;;
        registry) echo "export ML_SCHEMA_REGISTRY_URL=http://127.0.0.1:$port/apis/ccompat/v7" ;;
        esac
    done
}

up() { # SERVICE...
    local service port asked wanted wait waits=() failed=0
    declare -A since=() was_up=() broken=()
    for service; do
        port="$(port_of "$service")"
        if running "$service"; then
            asked="${service^^}_PORT"
            [[ ${!asked:-0} == 0 || ${!asked} == "$port" ]] || die "$service is up on port $port, not ${!asked}: run down first"
            was_up[$service]=yes
            continue
        fi
        fetch "$service"
        find_java
        mkdir -p "$dir/$service/data"
        if [[ -z $port ]]; then
            port="$(python3 "$here/ports.py" pick 2 "$dir/$service" "$claims")" || die "no free port for $service"
        fi
        wanted=("$port")
        [[ $service != kafka ]] || wanted+=("$(controller_port "$port")")
        python3 "$here/ports.py" free "${wanted[@]}" || die "$service was not started"
        echo "$port" >"$dir/$service/port"
    done
    # Waiting comes after all are launched, so that they start at the same time.
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
            { broken[$service]=yes failed=1; note "$service was not started"; show_log "$service"; }
    done
    for service; do
        [[ -z ${broken[$service]:-} ]] || continue
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
[[ $wipe == no || $command == down ]] || usage "--wipe goes with down only"
[[ ${#services[@]} -gt 0 ]] || services=(kafka registry)
for setting in KAFKA_PORT KAFKA_CONTROLLER_PORT REGISTRY_PORT CARBON_SERVICES_TIMEOUT; do
    [[ ${!setting:-0} =~ ^[0-9]{1,5}$ ]] || usage "$setting is not a number: ${!setting}"
done
# Kafka's and H2's settings, into which the folder's name goes, give other characters a meaning.
[[ $dir =~ ^[A-Za-z0-9/._+@=-]+$ ]] || usage "CARBON_SERVICES_DIR may hold letters, digits and /._+@=- only: $dir"
[[ -d /proc/self ]] || die "Linux only: there is no /proc"
command -v python3 >/dev/null || die "python3 is missing: install it (Debian and Ubuntu: apt-get install python3)"

case $command in
status) status "${services[@]}" ;;
env) exports "${services[@]}" ;;
*)
    umask 077
    mkdir -p "$dir"
    [[ -O $dir ]] || die "$dir belongs to somebody else"
    exec 9>"$dir/lock"
    flock -w 300 9 || die "another services.sh holds $dir/lock"
    case $command in
    down) down TERM "$wipe" "${services[@]}" ;;
    kill) down KILL no "${services[@]}" ;;
    *) "$command" "${services[@]}" ;;
    esac
    ;;
esac
