"""What is asked of a device's POSIX shell: small scripts, their arguments quoted, their answers marked.

They keep to what busybox, toybox and dash have. A login shell may be any, and may print what it likes before: only
marked lines count.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from edgeprune.errors import UsageError

__all__ = ["CHECK", "FREE", "HOME", "KILL", "MARK", "OPEN", "RECEIVE", "REMOVE", "START", "STARTED", "STATE"]
__all__ += ["answers", "command"]

MARK = "edgeprune-answer:"
_LINE_LIMIT = 8 * 1024  # dropbear ends the connection at 9000 (MAX_CMD_LEN)
STARTED = f"\n{MARK}started\n".encode()

# arguments: names of interpreters. Answers: the new folder, the first interpreter that is there.
# Android has no /tmp, and may have no mktemp; mkdir refuses what is there, so nobody can have made the folder before.
OPEN = f"""export LC_ALL=C
umask 077
for tmp in "$TMPDIR" /tmp "$PREFIX/tmp" /data/local/tmp "$HOME"; do
  [ -d "${{tmp:-/no}}" ] || continue
  if command -v mktemp >/dev/null; then
    folder=$(mktemp -d "$tmp/edgeprune-XXXXXX") && break
  else
    folder=$tmp/edgeprune-$$-$(date +%s)
    mkdir "$folder" && break
  fi
  folder=
done
[ -n "$folder" ] || exit 1
printf '\\n{MARK}%s\\n' "$folder"
PATH=$PATH:${{PREFIX:-/usr/local}}/bin:/usr/local/bin:/usr/bin:/opt/bin:/data/data/com.termux/files/usr/bin
for name in "$@"; do
  case $name in "~/"*) name=$HOME/${{name#??}} ;; esac
  if python=$(command -v "$name"); then printf '{MARK}%s\\n' "$python"; exit 0; fi
done
exit 0"""

# Answers: the folder that stays. Refuses one that someone else could have made or may write to.
HOME = f"""export LC_ALL=C
umask 077
for cache in "$XDG_CACHE_HOME" "$HOME/.cache" /data/local/tmp/.cache; do
  case $cache in //* | [!/]* | '') continue ;; esac
  mkdir -p "$cache" 2>/dev/null
  home=$cache/edgeprune
  [ -d "$home" ] || [ -h "$home" ] || mkdir "$home" || continue
  [ ! -h "$home" ] || {{ echo "$home is a link"; exit 1; }}
  cd -P "$home" || exit 1
  set -- $(ls -ldn .) ""
  [ "$3" = "$(id -u)" ] || {{ echo "$home belongs to someone else"; exit 1; }}
  case $1 in
    drwx------*) ;;
    d????[!w]??[!w]*) chmod 700 . || exit 1 ;;
    *) echo "others may write to $home"; exit 1 ;;
  esac
  printf '\\n{MARK}%s\\n' "$home"
  exit 0
done
exit 1"""

_SUM = """sum() {
  sha256sum < "$1" 2>/dev/null || "$2" -c '
import hashlib, sys
digest = hashlib.sha256()
for block in iter(lambda: sys.stdin.buffer.read(1 << 20), b""): digest.update(block)
print(digest.hexdigest())' < "$1"
}"""

# arguments: part, interpreter. Ends a receiver of a broken link that does not know it yet.
# Answers: what the part holds, as its size and sha256; "gone" without its folder.
STATE = f"""{_SUM}
[ -d "${{1%/*}}" ] || {{ printf '\\n{MARK}gone\\n'; exit 0; }}
if [ ! -h "$1.pid" ] && pid=$(cat "$1.pid" 2>/dev/null) && [ "/proc/$pid/fd/1" -ef "$1" ]; then
  kill -9 "$pid"
  while kill -0 "$pid" 2>/dev/null && [ "/proc/$pid/fd/1" -ef "$1" ]; do sleep 1; done
fi
[ ! -h "$1" ] && [ -f "$1" ] || {{ printf '\\n{MARK}0 -\\n'; exit 0; }}
set -- "$(sum "$@")" "$(wc -c < "$1")"
printf '\\n{MARK}%s %s\\n' $2 "${{1%% *}}\""""

# arguments: part, offset. Appends stdin to the part, or begins it.
# The process that writes is the one that the file with the process id names.
RECEIVE = """export LC_ALL=C
umask 077
rm -f -- "$1.pid"
set -C
echo $$ > "$1.pid" || exit 1
[ "$2" != 0 ] || rm -f -- "$1"
[ ! -h "$1" ] || exit 1
if [ "$2" = 0 ]; then exec cat > "$1"; else exec cat >> "$1"; fi"""

# arguments: part, destination, sha256, interpreter. Answers: "stored", or the sha256 that it has instead.
CHECK = f"""export LC_ALL=C
{_SUM}
rm -f -- "$1.pid"
sum=$(sum "$1" "$4")
case $sum in
  "$3"*) ;;
  *) rm -f -- "$1"; printf '\\n{MARK}%s\\n' "${{sum:-no sha256}}"; exit 0 ;;
esac
[ ! -h "$2" ] || rm -f -- "$2"
[ ! -d "$2" ] || {{ rm -f -- "$1"; printf '\\n{MARK}%s\\n' "a folder of that name is there"; exit 0; }}
mv -f -- "$1" "$2" && printf '\\n{MARK}%s\\n' stored"""

# arguments: folder. Answers: free bytes.
FREE = f"""df -Pk "$1" | awk 'NR == 2 {{ printf "\\n{MARK}%.0f\\n", $4 * 1024 }}'"""

# arguments: folder, file for the process id, program and its arguments. What follows the mark is the program's.
# The program leads a process group, so that its children can be ended with it; dropbear does not see to that.
START = f"""cd "$1" || exit 1
shift
run='echo $$ > "$1" || exit 1; shift; printf "\\n{MARK}started\\n"; exec "$@"'
group=
{{ read -r stat < /proc/$$/stat; }} 2> /dev/null && stat=${{stat##*) ? }} && group=${{stat#* }} && group=${{group%% *}}
if [ "${{group:-$$}}" != $$ ] && command -v setsid > /dev/null; then
  exec setsid sh -c "$run" sh "$@"
fi
eval "$run\""""

# arguments: file with the process id. Its group where it leads one, and itself.
KILL = """pid=$(cat "$1") || exit 0
kill -9 "-$pid" 2>/dev/null || kill -9 "$pid" 2>/dev/null
exit 0"""

# arguments: folder. Ends the programs that still run in it and the receivers that still write into it, and removes it.
# What a broken link had held up may begin only now, and put files where rm has just been.
REMOVE = """for try in 1 2 3 4 5; do
  for file in "$1"/.pid-* "$1"/*.part.pid; do
    [ -f "$file" ] && [ ! -h "$file" ] && pid=$(cat "$file") || continue
    [ "/proc/$pid/cwd" -ef "$1" ] || [ "/proc/$pid/fd/1" -ef "${file%.pid}" ] || continue
    kill -9 "-$pid" 2>/dev/null || kill -9 "$pid" 2>/dev/null
  done
  rm -rf -- "$1" && exit 0
  sleep 1
done
exit 1"""


def command(script: str, *arguments: str) -> str:
    """The command line that runs a script whatever the login shell is; the arguments reach it as they are.

    Printable ASCII without a quote, a backslash (but for the escapes of `printf %b`), a newline or a !, between single
    quotes: sh, zsh, fish and csh read that alike. Raises UsageError where an argument has a NUL in it, or all are too
    long.
    """
    if any("\0" in argument for argument in arguments):
        raise UsageError("an argument of a program cannot have a NUL in it")
    text = f"set -- {shlex.join(arguments)}\n{script}"
    encoded = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b"\\'!" else f"\\0{byte:03o}"
        for byte in text.encode("utf-8", "surrogateescape")
    )
    line = f"exec sh -c 'eval \"$(printf %b \"$1\")\"' sh '{encoded}'"
    if len(line) > _LINE_LIMIT:
        raise UsageError(
            f"a command line of {len(line)} bytes is too long for a device, at most {_LINE_LIMIT} go through",
            hint="send what is long on the program's stdin, or as a file",
        )
    return line


def answers(output: bytes) -> Sequence[str]:
    """The marked lines of a script's output."""
    lines = output.decode("utf-8", "surrogateescape").split("\n")
    return [line[len(MARK) :].rstrip("\r") for line in lines if line.startswith(MARK)]
