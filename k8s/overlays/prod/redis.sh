#!/bin/sh
# Run by the pods of Redis: `redis.sh redis` and `redis.sh sentinel`, and before a pod leaves `redis.sh leave`.
#
# HOSTS names all of them, ME this one. Both servers keep a file on the volume and rewrite it, so that the names of the
# master and of the sentinels survive a restart of all. Passwords and sizes come from the manifest each time.
set -eu

SERVICE=laibao
CONF=${DATA:=/data}/redis.conf
SENTINEL_CONF=$DATA/sentinel.conf
: "${PORT:=6379}" "${SENTINEL_PORT:=26379}" "${BIND:=}"

sentinel() {
  REDISCLI_AUTH=$REDIS_SENTINEL_PASSWORD timeout 2 redis-cli -h "$1" -p "$SENTINEL_PORT" sentinel "$2" "$SERVICE" 2>/dev/null
}

# Prints the master's name from the sentinels; nothing if none answers.
master() {
  for host in $HOSTS; do
    found=$(sentinel "$host" get-master-addr-by-name | head -n 1)
    case " $HOSTS " in *" ${found:-nobody} "*) echo "$found" && return ;; esac
  done
}

run_redis() {
  master=$(master)
  if [ -z "$master" ] && [ -f "$CONF" ]; then
    # All servers are starting. Of the file that Redis wrote, keep only the line that names its master.
    sed -i '/^replicaof /!d' "$CONF"
  else
    : "${master:=${HOSTS%% *}}"
    if [ "$master" = "$ME" ]; then : >"$CONF"; else echo "replicaof $master $PORT" >"$CONF"; fi
  fi
  # everysec: a crash of all servers may cost a second; the gateways write their running streams again.
  # min-replicas: a master that is cut off from all others accepts no writes, which a failover would undo. So a new
  # master serves once a replica follows it: at once (no delay), and without a full copy (the backlog).
  # hash-max-listpack-value: a stream's hash in one listpack takes a quarter less memory, and fewer cache misses.
  # The passwords come by standard input: a command line is shown to everybody on the node.
  exec redis-server "$CONF" --port "$PORT" ${BIND:+--bind "$BIND"} --dir "$DATA" --replica-announce-ip "$ME" \
    --appendonly yes --appendfsync everysec --maxmemory "$MAXMEMORY" --maxmemory-policy noeviction \
    --hash-max-listpack-value 1024 \
    --min-replicas-to-write 1 --min-replicas-max-lag 10 --repl-diskless-sync-delay 0 --repl-backlog-size 64mb - <<END
requirepass "$REDIS_PASSWORD"
masterauth "$REDIS_PASSWORD"
END
}

run_sentinel() {
  if [ ! -f "$SENTINEL_CONF" ]; then
    master=$(master)
    cat >"$SENTINEL_CONF" <<END
port $SENTINEL_PORT
${BIND:+bind $BIND}
dir $DATA
protected-mode no
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $ME
sentinel monitor $SERVICE ${master:-${HOSTS%% *}} $PORT 2
sentinel down-after-milliseconds $SERVICE 5000
sentinel failover-timeout $SERVICE 10000
END
  fi
  # The passwords of now, whatever the sentinel wrote into its file.
  sed -i '/^sentinel auth-pass /d; /^sentinel sentinel-pass /d; /^requirepass /d; /^user /d' "$SENTINEL_CONF"
  cat >>"$SENTINEL_CONF" <<END
sentinel auth-pass $SERVICE $REDIS_PASSWORD
requirepass "$REDIS_SENTINEL_PASSWORD"
sentinel sentinel-pass $REDIS_SENTINEL_PASSWORD
END
  exec redis-server "$SENTINEL_CONF" --sentinel
}

# Hand the master role over before leaving: this costs a second instead of the time until the others notice.
leave() {
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ "$(master)" = "$ME" ] || return 0
    for host in $HOSTS; do
      # Ask one sentinel, since two would promote two replicas; ask again if it found no suitable replica.
      [ "$host" = "$ME" ] || case $(sentinel "$host" failover) in OK | INPROG*) break ;; esac
    done
    sleep 1
  done
}

case $1 in
  redis) run_redis ;;
  sentinel) run_sentinel ;;
  leave) leave ;;
esac
