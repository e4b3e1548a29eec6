#!/usr/bin/env bash
# Talks to a broker with printf, /dev/tcp and nc alone: nc.sh HOST PORT
# What a person can type is enough to take part. Nothing sleeps: a message is published again until
# it arrives, because a base client cannot see when its SUBSCRIBE took effect.
set -u
LC_ALL=C
host=$1 port=$2
failed=0

# publish_until_read NAME EXPECTED COMMAND...: runs COMMAND until EXPECTED comes in on descriptor 3.
publish_until_read() {
  local name=$1 expected=$2 received='' end=$((SECONDS + 10))
  shift 2
  while ((SECONDS < end)); do
    "$@" || break
    if IFS= read -r -t 0.2 -N "${#expected}" received <&3; then
      break
    fi
  done
  if [[ $received == "$expected" ]]; then
    echo "ok     $name"
  else
    printf 'FAILED %s: %q instead of %q\n' "$name" "$received" "$expected"
    failed=1
  fi
}

# CONNECT and SUBSCRIBE "a" in one write, read by the shell itself.
subscribe_by_shell() { exec 3<>"/dev/tcp/$host/$port" && printf '\x01\x00\x03\x02\x01a' >&3; }

# CONNECT, PUBLISH "a" with data "*+", DISCONNECT, and the end of the stream.
publish_by_shell() { (printf '\x01\x00\x05\x04\x01a*+\x02\x00' >"/dev/tcp/$host/$port"); }
publish_by_nc() { printf '\x01\x00\x05\x04\x01a*+\x02\x00' | nc -w 10 "$host" "$port"; }
publish_by_nc_with_a_token() {
  printf '\x01\x06s3cret\x05\x04\x01a*+\x02\x00' | nc -w 10 "$host" "$port"
}

message=$'\x05\x04\x01a*+'

subscribe_by_shell || exit 1
publish_until_read the_shell_alone "$message" publish_by_shell
exec 3>&-

if command -v nc >/dev/null; then
  subscribe_by_shell || exit 1
  publish_until_read nc_publishes "$message" publish_by_nc
  exec 3>&-

  subscribe_by_shell || exit 1
  publish_until_read nc_publishes_with_a_token "$message" publish_by_nc_with_a_token
  exec 3>&-

  # The subscriber is nc: it stays until the broker sees its DISCONNECT, then prints what came.
  coproc subscriber { nc -w 10 "$host" "$port"; }
  exec 3<&"${subscriber[0]}" 4>&"${subscriber[1]}"
  printf '\x01\x00\x03\x02\x01a' >&4
  publish_until_read nc_subscribes "$message" publish_by_shell
  printf '\x02\x00' >&4
  eval "exec 3<&- 4>&- ${subscriber[0]}<&- ${subscriber[1]}>&-"
  wait
else
  echo "skipped nc_publishes, nc_publishes_with_a_token, nc_subscribes: nc is not installed"
fi
exit $failed
