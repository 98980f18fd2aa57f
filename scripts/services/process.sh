# Starting, watching and stopping the processes, sourced by services.sh.
# shellcheck shell=bash disable=SC2154

# The marker on the command line tells our process from one that was given its pid later.
marker() { echo "-Dcarbon.service=$dir/$1"; }
running() { # SERVICE; sets pid
    pid="$(cat "$dir/$1/pid" 2>/dev/null)" && [[ -n $pid ]] && grep -qzxF -e "$(marker "$1")" "/proc/$pid/cmdline" 2>/dev/null
}
paused() { grep -q '^State:[[:space:]]*T' "/proc/$pid/status" 2>/dev/null; }

find_java() {
    local name="${JAVA_HOME:+$JAVA_HOME/bin/}java" version
    java="$(command -v "$name")" ||
        die "$name is missing: install Java 17 or later (Debian and Ubuntu: apt-get install openjdk-17-jre-headless)"
    version="$("$java" -version 2>&1 | sed -n '/version "/{s/.*version "\([0-9]*\).*/\1/p;q}')"
    [[ ${version:-0} -ge 17 ]] ||
        die "$java is version ${version:-unknown}: install Java 17 or later, or name one by JAVA_HOME"
}

spawn() { # SERVICE JAVA-ARGUMENT...
    local home="$dir/$1"
    # An empty environment: the registry would take variables such as LOG_LEVEL or AUTH_ENABLED for settings.
    # A session of its own: Ctrl-C in the terminal is not for it. The lock is not for it either.
    (cd "$home" && exec env -i PATH="$PATH" HOME="$HOME" LANG=C.UTF-8 setsid "$java" "$(marker "$1")" \
        -Djava.io.tmpdir="$home/tmp" -Djava.awt.headless=true -XX:+ExitOnOutOfMemoryError "${@:2}" \
        >>"$home/log" 2>&1 </dev/null 9>&-) &
    echo $! >"$home/pid"
    disown # or bash reports its end
    # Until the child has become what the marker names, it would be taken for a stranger.
    until running "$1" || ! kill -0 $! 2>/dev/null; do sleep 0.01; done
}

launch_kafka() { # PORT
    local home="$dir/kafka" controller log4j
    controller="$(controller_port "$1")"
    log4j=("-Dlog4j.configuration=file:$home/log4j.properties" -Dlog4j2.statusLoggerLevel=OFF)
    sed "s|@port@|$1|g; s|@controller@|$controller|g; s|@data@|$home/data|g" \
        "$here/kafka.properties" >"$home/server.properties" || return
    cat >"$home/log4j.properties" <<LOG
log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %c{1} %m%n
LOG
    if [[ ! -s $home/data/meta.properties ]]; then
        # An id of its own for every fresh log, so that two clusters are never taken for one. Not with a dash in front,
        # which would read as an option.
        local id
        id="$(python3 -c 'import base64, os; print("A" + base64.urlsafe_b64encode(os.urandom(16)).decode()[1:22])')"
        "$java" -Xmx128m "${log4j[@]}" -cp "$kafka_home/libs/*" kafka.tools.StorageTool format --ignore-formatted \
            -t "$id" -c "$home/server.properties" >>"$home/log" 2>&1 9>&- || return
    fi
    spawn kafka -Xms32m -Xmx"${KAFKA_HEAP:-512m}" -XX:+UseG1GC "${log4j[@]}" \
        -cp "$kafka_home/libs/*" kafka.Kafka "$home/server.properties"
}

launch_registry() { # PORT
    # WRITE_DELAY=0: a schema whose id was given out is on disk, and survives a kill.
    spawn registry -Xms32m -Xmx"${REGISTRY_HEAP:-384m}" -XX:+UseSerialGC \
        -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port="$1" \
        -DREGISTRY_DATASOURCE_URL="jdbc:h2:file:$dir/registry/data/registry;WRITE_DELAY=0" \
        -Dquarkus.datasource.jdbc.initial-size=2 -Dquarkus.datasource.jdbc.min-size=2 -Dquarkus.datasource.jdbc.max-size=20 \
        -Dregistry.ccompat.use-canonical-hash="${REGISTRY_CANONICAL_HASH:-true}" \
        -DLOG_LEVEL=WARN -DREGISTRY_LOG_LEVEL=WARN \
        -jar "$registry_home/apicurio-registry-app-$registry_version-runner.jar"
}

show_log() { # SERVICE
    [[ -s $dir/$1/log ]] || return 0
    note "the end of $dir/$1/log:"
    tail -n 30 "$dir/$1/log" >&2 || true
}

await_ready() { # SERVICE WHAT SINCE; prints its line
    local code=0
    running "$1" || { note "$1 died"; show_log "$1"; return 1; }
    python3 "$here/ready.py" "$1" "$(port_of "$1")" "$pid" "$ready_within" || code=$?
    case $code in
    0) printf '%-8s  %s  pid %s  127.0.0.1:%s  %s ms\n' "$1" "$2" "$pid" "$(port_of "$1")" $(($(now) - $3)) ;;
    1) note "$1 died"; show_log "$1"; return 1 ;;
    *) note "$1 was not ready within $ready_within s"; show_log "$1"; stop KILL "$1"; return 1 ;;
    esac
}
now() { echo $(($(date +%s%N) / 1000000)); }

# All threads are gone, and with them the ports and file locks; a zombie of which nobody takes note counts as gone.
ended() { # PID
    local threads=("/proc/$1/task"/*)
    [[ ! -d /proc/$1 ]] ||
        { [[ ${#threads[@]} -le 1 ]] && grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }
}

stop() { # SIGNAL SERVICE...
    local signal=$1 service deadline
    shift
    declare -A pids=()
    for service; do
        running "$service" || continue
        pids[$service]=$pid
        kill -"$signal" "$pid" 2>/dev/null || true
        kill -CONT "$pid" 2>/dev/null || true # a paused one sees TERM only when it goes on
    done
    deadline=$(($(now) + stop_within * 1000))
    for service in "${!pids[@]}"; do
        until ended "${pids[$service]}"; do
            if [[ $(now) -ge $deadline ]] && running "$service"; then
                note "$service did not stop within $stop_within s: killed"
                kill -KILL "$pid" 2>/dev/null || true
                deadline=$(($(now) + 5000))
            fi
            sleep 0.05
        done
    done
    for service; do rm -f "$dir/$service/pid"; done
}
