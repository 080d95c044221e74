# What comes before the init of a NixOS system in a builder's machine, in the place of NixOS' own initrd:
# its /nix is brought from the builder's disk, gets what of the system it does not have yet, and Nix is told
# of that. The store that is seen before is the host's. `toplevel` and `init` are set above.
set -eu
PATH=$toplevel/sw/bin:$toplevel/sw/sbin
export PATH
own=/usr/lib/machinist
settings=/run/systemd/system/nix-daemon.service.d
sectors=
if [ ! -e /run/host/container-manager ]; then
    mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs /run
    # Its shell writes to processes by these, before anything else makes them.
    ln -sfn /proc/self/fd /dev/fd
    ln -sfn /proc/self/fd/0 /dev/stdin
    ln -sfn /proc/self/fd/1 /dev/stdout
    ln -sfn /proc/self/fd/2 /dev/stderr
    new=/run/machinist-nix
    mkdir -p $new $settings
    # It knows its disk by the serial number.
    disk=
    for serial in /sys/block/*/serial; do
        read -r name < "$serial" || true
        [ "$name" != disk0 ] || { disk=${serial%/serial}; disk=/dev/${disk##*/}; }
    done
    case $(cat /proc/filesystems) in
        *ext4*) ;;
        *) "$toplevel/sw/bin/modprobe" -d "$toplevel/kernel-modules" ext4 ;;
    esac
    mount -t ext4 -o noatime,discard "$disk" $new
    mkdir -p $new/store
    # The collector has left alone what belongs to the system of before, whose list this is. Of what else is there
    # it may have deleted a part when it was killed.
    said=
    [ ! -e $new/var/nix/machinist-system ] || read -r said < $new/var/nix/machinist-system || true
    whole=
    [ ! -e $new/var/nix/machinist-closure ] || whole=$(cat $new/var/nix/machinist-closure)
    whole=" $(echo $whole) "
    # A path is there as a whole, or not at all.
    added=
    while read -r name; do
        if [ -e "$new/store/$name" ] || [ -L "$new/store/$name" ]; then
            [ "$said" != "$toplevel" ] || continue
            case $whole in *" $name "*) continue ;; esac
        fi
        [ -n "$added" ] || echo "machinist: copying the system into the builder's store"
        added="$added $name"
        rm -rf "$new/store/.machinist-$name"
        cp -a "/nix/store/$name" "$new/store/.machinist-$name"
    done < $own/closure
    if [ -n "$added" ]; then
        sync
        for name in $added; do
            rm -rf "$new/store/$name"
            mv "$new/store/.machinist-$name" "$new/store/$name"
        done
        sync
    fi
    mount --move $new /nix
    read -r sectors < "/sys/block/${disk##*/}/size"
    # When it is killed, a path must not be known that is not on its disk.
    printf '[Service]\nEnvironment="NIX_CONFIG=fsync-store-paths = true"\n' > $settings/machinist.conf
elif [ -e /run/machinist-network ]; then
    # Fixed-output derivations have the network of the daemon, and nothing else in here has one.
    mkdir -p $settings
    printf '[Service]\nNetworkNamespacePath=/run/machinist-network\n' > $settings/machinist.conf
fi
known=/nix/var/nix/machinist-system
said=
[ ! -e $known ] || read -r said < $known || true
if [ "$said" != "$toplevel" ]; then
    mkdir -p /nix/var/nix/gcroots
    HOME=/root nix-store --option build-users-group "" --load-db < $own/registration
    # The collector leaves it alone, also before its system has said so.
    ln -sfn "$toplevel" /nix/var/nix/gcroots/machinist-system
    # For machinist's own system, should it come after this one: there is a database.
    echo "$sectors" > /nix/var/nix/machinist
    cp $own/closure /nix/var/nix/machinist-closure
    sync
    echo "$toplevel" > $known
fi
# Who waits for its daemon waits for the one of this start.
rm -f /nix/var/nix/daemon-socket/socket
# The file systems that it would mount are those of another machine.
mkdir -p /run/systemd/system-generators
ln -sfn /dev/null /run/systemd/system-generators/systemd-fstab-generator
cd /
exec "$init" "$@"
