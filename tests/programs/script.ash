# What shell scripts live on: pipes, substitutions, traps, jobs, here-documents, redirections, arithmetic, globs.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"; echo cleaned' EXIT
cd "$dir"
for n in 1 2 3; do echo "line $n" >"f$n"; done
cat f* | sort -r | head -n 2
echo "$((6 * 7)) $(printf '%s' a b c | wc -c)"
cat <<END | tr a-z A-Z
a here-document of $(basename f1)
END
(sleep 0.1; echo from a job >job) &
wait $!
cat job
mkfifo pipe
(echo through a pipe >pipe) & read -r said <pipe; echo "$said"; wait
trap 'echo caught' USR1
kill -USR1 $$
ln -s f1 link && readlink link && cp -a link copy && mv copy moved && ls
find . -name 'f?' -exec grep -l 2 {} +
tar -cf t.tar f1 f2 f3 && gzip t.tar && zcat t.tar.gz | tar -tf - | wc -l
sed -n 's/line //p' f3 | awk '{ print $1 * 2 }'
if (exit 3); then echo no; else echo "status $?"; fi
chmod 600 f1 && stat -c %a f1 && touch -d '2020-01-02 03:04:05' f1 && date -r f1 +%Y
dd if=/dev/zero of=zeros bs=1024 count=8 2>/dev/null && md5sum zeros
echo "$(id -u)" | grep -qE '^[0-9]+$' && echo numbers
