#!/bin/sh
# nix-store of a Debian, for a host that may have none; the store of BOX is its own, too.
#   nix.sh BOX DEBIAN ARGUMENT...
# Nothing is written to the Debian, and nothing of this is seen by others.
exec unshare --mount sh -ec '
    box=$1
    debian=$2
    shift 2
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay -o "lowerdir=$debian,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
    mkdir -p /mnt/root/nix
    for name in dev proc tmp; do
        mount --rbind /$name /mnt/root/$name
    done
    mount --bind "$box/nix" /mnt/root/nix
    exec chroot /mnt/root /usr/bin/nix-store "$@"' nix "$@"
