# Downloads Kafka and the registry from Maven Central; sourced by services.sh. A download goes to a temporary folder
# that is renamed at the end, so an incomplete download is never used.
# shellcheck shell=bash disable=SC2154

is_complete_kafka() {
    [[ -s $kafka_home/libs/kafka_2.13-$kafka_version.jar && -s $kafka_home/libs/kafka-clients-$kafka_version.jar &&
        -s $kafka_home/libs/slf4j-reload4j-1.7.36.jar ]]
}
is_complete_registry() {
    [[ -s $registry_home/apicurio-registry-app-$registry_version-runner.jar && -d $registry_home/lib ]]
}

fetch() { # SERVICE
    "is_complete_$1" && return
    command -v mvn >/dev/null ||
        die "mvn is missing, and $1 must be downloaded: install Maven (Debian and Ubuntu: apt-get install maven)"
    mkdir -p "$cache"
    exec 8>"$cache/lock"
    flock 8 # only one of several concurrent starts downloads
    if ! "is_complete_$1"; then
        note "downloading $1 from Maven Central"
        rm -rf "$cache"/.part-* # left by a download that was killed
        local part home output
        part="$(mktemp -d "$cache/.part-XXXXXX")"
        output="$("fetch_$1" "$part" 2>&1 </dev/null)" ||
            { rm -rf "$part"; echo "$output" >&2; die "downloading $1 failed"; }
        home="$1_home"
        rm -rf "${!home}"
        mv -T "$part" "${!home}"
        "is_complete_$1" || die "$1 was downloaded, but files are missing in ${!home}"
    fi
    exec 8>&-
}

fetch_kafka() { # FOLDER
    cat >"$1/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
  <groupId>carbon</groupId><artifactId>kafka-dist</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka_version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-reload4j</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
    mvn -B -q -C -f "$1/pom.xml" "$maven_dependency:copy-dependencies" \
        -DoutputDirectory="$1/libs" -DincludeScope=runtime
}

fetch_registry() { # FOLDER
    mvn -B -q -C "$maven_dependency:copy" -DoutputDirectory="$1/dl" \
        -Dartifact="io.apicurio:apicurio-registry-app:$registry_version:tar.gz:all" &&
        tar xzf "$1/dl/apicurio-registry-app-$registry_version-all.tar.gz" -C "$1" && rm -rf "$1/dl"
}
