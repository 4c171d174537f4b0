"""What is asked of a device's POSIX shell: small scripts, their arguments quoted, their answers marked.

They keep to what busybox, toybox and dash have. A login shell may print what it likes before: only marked lines count.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

__all__ = ["FREE", "HOME", "KILL", "MARK", "OPEN", "RECEIVE", "REMOVE", "START", "answers", "command"]

MARK = "edgeprune-answer:"

# arguments: names of interpreters. Answers: the new folder, the first interpreter that is there.
OPEN = f"""umask 077
folder=$(mktemp -d "${{TMPDIR:-/tmp}}/edgeprune-XXXXXX") || exit 1
printf '\\n{MARK}%s\\n' "$folder"
for name in "$@"; do
  if python=$(command -v "$name"); then printf '{MARK}%s\\n' "$python"; exit 0; fi
done
exit 0"""

# Answers: the folder that stays. Refuses one that someone else could have made or may write to.
HOME = f"""umask 077
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
  printf '\n{MARK}%s\n' "$home"
  exit 0
done
exit 1"""

# arguments: part, destination, sha256, interpreter. Reads the file from stdin.
RECEIVE = f"""umask 077
rm -f -- "$1"; cat > "$1" || {{ rm -f -- "$1"; exit 3; }}
sum=$(sha256sum < "$1" 2>/dev/null) || sum=$("$4" -c '
import hashlib, sys
print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())' < "$1")
case $sum in
  "$3"*) mv -f -- "$1" "$2" && printf '\\n{MARK}%s\\n' stored ;;
  *) rm -f -- "$1"; printf '\\n{MARK}%s\\n' "${{sum:-no sha256}}" ;;
esac"""

# arguments: folder. Answers: free bytes.
FREE = f"""df -Pk "$1" | awk 'NR == 2 {{ printf "\\n{MARK}%.0f\\n", $4 * 1024 }}'"""

# arguments: folder, file for the process id, program and its arguments.
START = """cd "$1" || exit 1
echo $$ > "$2"
shift 2
exec "$@\""""

# arguments: file with the process id. Its group where it leads one, and itself.
KILL = """pid=$(cat "$1") || exit 0
kill -9 "-$pid" 2>/dev/null || kill -9 "$pid" 2>/dev/null
exit 0"""

# arguments: folder.
REMOVE = """rm -rf -- "$1\""""


def command(script: str, *arguments: str) -> str:
    """The command line that runs a script whatever the login shell is; the arguments reach it as they are."""
    return shlex.join(["exec", "sh", "-c", script, "sh", *arguments])


def answers(output: bytes) -> Sequence[str]:
    """The marked lines of a script's output."""
    lines = output.decode("utf-8", "replace").splitlines()
    return [line[len(MARK) :] for line in lines if line.startswith(MARK)]
