# Starts, checks and stops the processes; sourced by services.sh.
# shellcheck shell=bash disable=SC2154

# A marker on the command line of each process. If another process gets the same pid later, the marker is missing there.
marker() { echo "-Dcarbon.service=$dir/$1"; }
running() { # SERVICE; sets `pid`
    pid="$(cat "$dir/$1/pid" 2>/dev/null)" && [[ -n $pid ]] && grep -qzxF -e "$(marker "$1")" "/proc/$pid/cmdline" 2>/dev/null
}
paused() { grep -q '^State:[[:space:]]*T' "/proc/$pid/status" 2>/dev/null; }

find_java() {
    local name="${JAVA_HOME:+$JAVA_HOME/bin/}java" version
    java="$(command -v "$name")" ||
        die "$name is missing: install Java 17 or later (Debian and Ubuntu: apt-get install openjdk-17-jre-headless)"
    version="$("$java" -version 2>&1 | sed -n '/version "/{s/.*version "\([0-9]*\).*/\1/p;q}')"
    [[ ${version:-0} -ge 17 ]] ||
        die "$java is version ${version:-unknown}: install Java 17 or later, or set JAVA_HOME"
}

spawn() { # SERVICE JAVA-ARGUMENT...
    local home="$dir/$1"
    # env -i: the registry reads variables such as LOG_LEVEL and AUTH_ENABLED as settings.
    # setsid: Ctrl-C in the terminal must not stop the service. 9>&-: the service must not inherit the lock.
    (cd "$home" && exec env -i PATH="$PATH" HOME="$HOME" LANG=C.UTF-8 setsid "$java" "$(marker "$1")" \
        -Djava.io.tmpdir="$home/tmp" -Djava.awt.headless=true -XX:+ExitOnOutOfMemoryError "${@:2}" \
        >>"$home/log" 2>&1 </dev/null 9>&-) &
    echo $! >"$home/pid"
    disown # so that bash does not report the end of the process
    # Wait until the child has replaced itself with java: `running` checks the marker on the command line.
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
        # Each new log gets a random cluster id, so that clients can distinguish two clusters. The id starts with a
        # letter: StorageTool would read a leading dash as an option.
        local id
        id="$(python3 -c 'import base64, os; print("A" + base64.urlsafe_b64encode(os.urandom(16)).decode()[1:22])')"
        "$java" -Xmx128m "${log4j[@]}" -cp "$kafka_home/libs/*" kafka.tools.StorageTool format --ignore-formatted \
            -t "$id" -c "$home/server.properties" >>"$home/log" 2>&1 9>&- || return
    fi
    spawn kafka -Xms32m -Xmx"${KAFKA_HEAP:-512m}" -XX:+UseG1GC "${log4j[@]}" \
        -cp "$kafka_home/libs/*" kafka.Kafka "$home/server.properties"
}

launch_registry() { # PORT
    # WRITE_DELAY=0: H2 writes a schema to disk before the registry returns its id, so the schema survives a kill.
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
    note "last lines of $dir/$1/log:"
    tail -n 30 "$dir/$1/log" >&2 || true
}

await_ready() { # SERVICE WHAT SINCE; prints the status line of the service
    local code=0
    running "$1" || { note "$1 ended unexpectedly"; show_log "$1"; return 1; }
    python3 "$here/ready.py" "$1" "$(port_of "$1")" "$pid" "$ready_within" || code=$?
    case $code in
    0) printf '%-8s  %s  pid %s  127.0.0.1:%s  %s ms\n' "$1" "$2" "$pid" "$(port_of "$1")" $(($(now) - $3)) ;;
    1) note "$1 ended unexpectedly"; show_log "$1"; return 1 ;;
    *) note "$1 was not ready within $ready_within s; killing it"; show_log "$1"; stop KILL "$1"; return 1 ;;
    esac
}
now() { echo $(($(date +%s%N) / 1000000)); }

# True if all threads of the process have ended, which releases its ports and file locks. A zombie process counts as
# ended.
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
        kill -CONT "$pid" 2>/dev/null || true # a paused process handles SIGTERM only after SIGCONT
    done
    deadline=$(($(now) + stop_within * 1000))
    for service in "${!pids[@]}"; do
        until ended "${pids[$service]}"; do
            if [[ $(now) -ge $deadline ]] && running "$service"; then
                note "$service did not stop within $stop_within s; killing it"
                kill -KILL "$pid" 2>/dev/null || true
                deadline=$(($(now) + 5000))
            fi
            sleep 0.05
        done
    done
    for service; do rm -f "$dir/$service/pid"; done
}
