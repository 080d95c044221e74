# Its input: names. Each is put into the store, or says that something is there: one line of output each.
# Its argument is `again` after a start: then the places of former ones may be there. Where one fails, none
# is there afterwards; what the machine has of its own stays.
set -eu
again=$1
from=/run/machinist-host-store/all
to=/nix/store
work=$(mktemp -d)
: > "$work/table"
: > "$work/made"
end() {
    [ "$1" = 0 ] || {
        cut -d' ' -f2 "$work/table" | xargs -r umount --lazy --quiet 2> /dev/null || true
        while read -r place; do
            rm -f "$place" 2> /dev/null || rmdir "$place" || true
        done < "$work/made"
    }
    rm -rf "$work"
}
trap 'end $?' EXIT
empty() {
    if [ -d "$1" ]; then
        set -- "$1"/* "$1"/.[!.]*
        [ ! -e "$1" ] && [ ! -e "$2" ]
    else
        [ -f "$1" ] && [ ! -s "$1" ]
    fi
}
while read -r name; do
    source=$from/$name target=$to/$name
    there=there
    if [ -L "$source" ]; then
        if [ ! -L "$target" ] && [ ! -e "$target" ]; then
            cp -P "$source" "$target"
            echo "$target" >> "$work/made"
        elif [ "$again" != again ] || [ "$(readlink "$target")" != "$(readlink "$source")" ]; then
            there=taken
        fi
    elif [ -L "$target" ] || [ -e "$target" ]; then
        if [ "$again" = again ] && [ ! -L "$target" ] && empty "$target"; then
            echo "$source $target none bind,ro,nosuid,nodev 0 0" >> "$work/table"
        else
            there=taken
        fi
    else
        if [ -d "$source" ]; then mkdir "$target"; else : > "$target"; fi
        echo "$target" >> "$work/made"
        echo "$source $target none bind,ro,nosuid,nodev 0 0" >> "$work/table"
    fi
    echo "$there"
done
# All of them at once: each call would look at all mounts.
[ ! -s "$work/table" ] || mount --all --fstab "$work/table" >&2
