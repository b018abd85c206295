#!/bin/sh
# What the pods of Redis run: `redis.sh redis` and `redis.sh sentinel`, and before a pod leaves `redis.sh leave`.
#
# HOSTS names all of them, ME this one. Both servers keep a file on the volume and rewrite it, so that who is the
# master, and who the sentinels are, survives a restart of all. Passwords and sizes come from the manifest each time.
set -eu

SERVICE=laibao
CONF=${DATA:=/data}/redis.conf
SENTINEL_CONF=$DATA/sentinel.conf
: "${PORT:=6379}" "${SENTINEL_PORT:=26379}" "${BIND:=}"

sentinel() {
  timeout 2 redis-cli -h "$1" -p "$SENTINEL_PORT" sentinel "$2" "$SERVICE" 2>/dev/null
}

# Whom the sentinels call the master; nothing where none answers.
master() {
  for host in $HOSTS; do
    found=$(sentinel "$host" get-master-addr-by-name | head -n 1)
    case " $HOSTS " in *" ${found:-nobody} "*) echo "$found" && return ;; esac
  done
}

run_redis() {
  master=$(master)
  if [ -z "$master" ] && [ -f "$CONF" ]; then
    # Everybody starts again. Of what Redis wrote there, one thing is to be remembered: whom it followed.
    sed -i '/^replicaof /!d' "$CONF"
  else
    : "${master:=${HOSTS%% *}}"
    if [ "$master" = "$ME" ]; then : >"$CONF"; else echo "replicaof $master $PORT" >"$CONF"; fi
  fi
  # everysec: a crash of all at once may cost a second, and the gateways write again what they know.
  # min-replicas: a master that is cut off from all others takes no writes that a failover would then undo. So a new
  # master is of use when a replica has followed it: at once (no delay), and without a copy of everything (the backlog).
  # hash-max-listpack-value: a stream's hash in one piece takes a quarter less memory, and fewer cache misses.
  exec redis-server "$CONF" --port "$PORT" ${BIND:+--bind "$BIND"} --dir "$DATA" \
    --requirepass "$REDIS_PASSWORD" --masterauth "$REDIS_PASSWORD" --replica-announce-ip "$ME" \
    --appendonly yes --appendfsync everysec --maxmemory "$MAXMEMORY" --maxmemory-policy noeviction \
    --hash-max-listpack-value 1024 \
    --min-replicas-to-write 1 --min-replicas-max-lag 10 --repl-diskless-sync-delay 0 --repl-backlog-size 64mb
}

run_sentinel() {
  if [ ! -f "$SENTINEL_CONF" ]; then
    master=$(master)
    cat >"$SENTINEL_CONF" <<END
port $SENTINEL_PORT
${BIND:+bind $BIND}
dir $DATA
# Who may speak to it is the NetworkPolicy's to say; it holds no data.
protected-mode no
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $ME
sentinel monitor $SERVICE ${master:-${HOSTS%% *}} $PORT 2
sentinel down-after-milliseconds $SERVICE 5000
sentinel failover-timeout $SERVICE 10000
END
  fi
  sed -i '/^sentinel auth-pass /d' "$SENTINEL_CONF"
  echo "sentinel auth-pass $SERVICE $REDIS_PASSWORD" >>"$SENTINEL_CONF"
  exec redis-server "$SENTINEL_CONF" --sentinel
}

# Hand the mastership over before leaving: that costs a second, and not the time until the others notice.
leave() {
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ "$(master)" = "$ME" ] || return 0
    for host in $HOSTS; do
      # One of them, for two would promote two; the same again where it found no replica fit for it a moment ago.
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
