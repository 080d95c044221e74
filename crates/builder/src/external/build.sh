# In the machine, as root: an external build. NAME: its directory. Then how many bytes of standard input
# are the closure's paths, the environment, our own program, and the archive of the build's files; and
# where the build sees its directory. What follows on standard input is for `nix-store --serve`.
set -eu
top=/nix/machinist/external
mkdir -p "$top"
exec 8> "$top/lock"
flock 8
for old in "$top"/*/; do
    # Nobody has the lock of what a service that was killed has left.
    [ ! -e "$old/lock" ] || flock --nonblock "$old/lock" rm -rf "$old" || true
done
directory=$top/$1
mkdir -p "$directory/store" "$directory/var/nix" "$directory/shown/build"
exec 9> "$directory/lock"
flock 9
exec 8>&-

cd "$directory"
head -c "$2" > closure
head -c "$3" > shown/environment
head -c "$4" > shown/machinist
head -c "$5" | tar --extract --no-same-owner --directory shown/build
chmod -R a+rX,u+w shown
chmod a+x shown/machinist
xargs -r nix-store --dump-db < closure > database

# A store of its own: the closure as it is in the machine's, and nothing else. Ids of builds are shared
# with the machine's own Nix, which kills everything that has the id of a build that ends.
enter=
network=/run/machinist-network
# Fixed outputs have a network where those of the machine's own Nix have one.
[ ! -e "$network" ] || enter="nsenter --net=$network"
exec $enter unshare --mount --pid --fork --kill-child --mount-proc sh -euc '
    while read -r path; do
        here=$PWD/store/${path##*/}
        if [ -L "$path" ]; then
            cp -P "$path" "$here"
            continue
        elif [ -d "$path" ]; then
            echo "$here" >&3
        else
            : > "$here"
        fi
        echo "$path $here none bind 0 0"
    done < closure > mounts 3> directories
    xargs -r mkdir < directories
    mount --all --fstab mounts
    chmod 1775 store
    mkdir -p /nix/var/nix/userpool2 var/nix/userpool2
    mount --bind /nix/var/nix/userpool2 var/nix/userpool2
    mount --rbind store /nix/store
    mount --rbind var /nix/var
    export NIX_REMOTE=local
    nix-store --load-db < database
    exec nix-store --serve --write --keep-failed --option substitute false --option sandbox-build-dir "$1" \
        --option extra-sandbox-paths "/.machinist=$PWD/shown"
' sh "$6"
