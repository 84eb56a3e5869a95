/**
 * What the guest's /bin/sh is told, in words that every shell knows (Debian's dash, busybox, bash). Arguments come as $1 and on; none of
 * them is ever read as a script.
 */

/** Makes the folder $1 of a program. There already: it was made before. */
export const PREPARE = `
umask 077
mkdir -p "\${1%/*}"
mkdir "$1" 2>/dev/null || { [ -d "$1/begun" ] && exit 0; }
: > "$1/out" && : > "$1/err" && : > "$1/in" && : > "$1/lease"
`

/** $1: FOLLOW, then its arguments: in a session of its own, where the guest can, so that it can be killed with what it started. */
export const START = `
command -v setsid >/dev/null 2>&1 && exec setsid /bin/sh -c "$@"
exec /bin/sh -c "$@"
`

/** $1: FOLLOW, then its arguments. Begins it in the background, once for its folder $3. */
export const DETACH = `
mkdir "$3/begun" 2>/dev/null || exit 0
alone=
command -v setsid >/dev/null 2>&1 && alone=setsid
$alone /bin/sh -c "$@" </dev/null >/dev/null 2>&1 &
`

/**
 * Runs a program: $1 its folder, $2 the way (plain, input, detached), $3 where, $4 as whom, then the program itself. It ends with the
 * program's code. One that is followed is killed when its lease is not renewed.
 */
export const FOLLOW = `
d=$1 way=$2 where=$3 user=$4
shift 4
exec 2>/dev/null
umask 022
[ -z "$user" ] || set -- chroot --skip-chdir --userspec="$user" / "$@"
work() { cd "$where" && exec "$@"; }
[ "$way" != detached ] || { work "$@"; exit; }
umask 077
mkdir "$d/begun" || exit 0
echo $$ > "$d/pid"
umask 022
(
  while sleep 60; do
    rm "$d/lease" && continue
    rm -rf "$d"
    kill -KILL -$$ || kill -KILL $$
    exit
  done
) >/dev/null </dev/null &
watch=$!
feed() {
  at=0
  while [ ! -e "$d/code" ]; do
    last=
    [ ! -e "$d/closed" ] || last=1
    size=$(wc -c < "$d/in")
    if [ "$size" -gt "$at" ]; then
      tail -c +$((at + 1)) "$d/in" | head -c $((size - at)) || return
      at=$((size))
    elif [ -n "$last" ]; then
      return
    else
      sleep 0.1 || sleep 1
    fi
  done
}
run() {
  (work "$@") >"$d/out" 2>"$d/err"
  echo $? > "$d/code"
}
case $way in
  input) feed | run "$@" ;;
  *) run "$@" </dev/null ;;
esac
kill $watch
exit "$(cat "$d/code")"
`

/** Kills the program of the folder $1, and what it started, if it still runs; removes the folder. */
export const KILL = `
[ -d "$1" ] || exit 0
if [ ! -e "$1/code" ] && pid=$(cat "$1/pid" 2>/dev/null); then
  kill -KILL "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"
`

export const FORGET = 'rm -rf "$1"'

/** Type and mode in hexadecimal, size, seconds, whether it leads to a folder, and on further lines where a link leads. Exit 44: not there. */
export const STAT = `
[ -e "$1" ] || [ -L "$1" ] || exit 44
leads=
[ ! -d "$1" ] || leads=folder
stat -c "%f %s %Y $leads" -- "$1" || exit
[ ! -L "$1" ] || readlink "$1"
`
