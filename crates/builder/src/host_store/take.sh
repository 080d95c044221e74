# Its input: names that `put.sh` has put there, which are taken out of the store; with the argument `places`
# also what they were on.
set -eu
places=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/names"
cd /nix/store
# Links and what is not there are not mounted. What uses a mount keeps it until it ends.
while read -r name; do
    [ -L "$name" ] || [ ! -e "$name" ] || echo "$name"
done < "$work/names" | xargs -r umount --lazy --quiet 2> /dev/null || true
[ "$places" = places ] || exit 0
while read -r name; do
    if [ -L "$name" ]; then rm "$name"; elif [ -d "$name" ]; then rmdir "$name" || true; else rm -f "$name" || true; fi
done < "$work/names"
