#!/bin/sh
# Makes a NixOS system, as far as a builder sees one, of a Debian with Nix: in the store of BOX, where Nix knows
# it. As in NixOS, programs are in no usual place, /etc and /usr are what its init makes them, and its Nix daemon
# is a unit of its own. Prints the toplevel.
#   system.sh BOX DEBIAN NAME [KERNEL MODULES]
set -eu
box=$1
debian=$2
name=$3
kernel=${4-}
store=$box/nix/store
mkdir -p "$store"

number() { echo "/nix/store/0000000000000000000000000000000$1"; }
shell=$(number 1)-shell
programs=$(number 2)-programs
linux=$(number 3)-linux
modules=$(number 4)-kernel-modules
system=$(number 5)-nixos-system-test-$name

# Several systems may have them.
[ -e "$box$programs" ] || sh "$(dirname "$0")/programs.sh" "$box" "$debian" "$shell" "$programs"

toplevel=$box$system
mkdir -p "$toplevel/sw" "$toplevel/etc/systemd/system/sockets.target.wants" "$toplevel/etc/nix"
ln -s "$programs/bin" "$toplevel/sw/bin"
printf x86_64-linux > "$toplevel/system"
printf "26.05.test" > "$toplevel/nixos-version"
printf "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n" > "$toplevel/etc/passwd"
printf "root:x:0:\nnogroup:x:65534:\n" > "$toplevel/etc/group"
units=$toplevel/etc/systemd/system
cat > "$units/nix-daemon.socket" <<'END'
[Socket]
ListenStream=/nix/var/nix/daemon-socket/socket
END
cat > "$units/nix-daemon.service" <<'END'
[Service]
ExecStart=/usr/bin/nix-daemon
Delegate=yes
KillMode=process
END
ln -s ../nix-daemon.socket "$units/sockets.target.wants/"
# What is nowhere, and would stop its boot.
echo "/dev/disk/by-label/boot /boot vfat defaults 0 2" > "$toplevel/etc/fstab"
cat > "$toplevel/etc/nix/nix.conf" <<END
build-users-group =
sandbox = true
sandbox-fallback = false
sandbox-paths = /bin/sh=$shell/bin/sh
auto-allocate-uids = true
experimental-features = auto-allocate-uids cgroups
system-features = kvm marked uid-range
substituters =
END
cat > "$toplevel/init" <<END
#! $shell/bin/sh
systemConfig=$system
programs=$programs
END
cat >> "$toplevel/init" <<'END'
export PATH=$programs/bin
# As NixOS' own, whose log goes by way of a process: that needs these.
[ -e /dev/fd/1 ] || exit 1
# Its store is read-only, but for its Nix.
mount --bind /nix/store /nix/store
mount -o remount,ro,bind /nix/store
ln -sfn $systemConfig /run/current-system
mkdir -p /usr
mount --bind $programs/usr /usr
for name in lib lib64; do
    [ -e /$name ] || ln -s usr/$name /$name
done
cp -a $systemConfig/etc/* /etc/
ln -s $programs/bin/sh /bin/sh
[ -e /etc/resolv.conf ] || ln -s /nowhere /etc/resolv.conf
echo "starting systemd..."
exec /usr/lib/systemd/systemd "$@"
END
chmod 0755 "$toplevel/init"
references="$shell $programs"
if [ -n "$kernel" ]; then
    here=$PWD
    version=${5##*/}
    mkdir -p "$box$linux" "$box$modules/lib/modules/$version"
    cp "$kernel" "$box$linux/bzImage"
    # Nobody runs it.
    echo nothing | gzip > "$box$linux/initrd"
    cd "$5"
    cp modules.* "$box$modules/lib/modules/$version/"
    find kernel/lib kernel/crypto kernel/arch/x86/crypto kernel/fs/9p kernel/fs/erofs kernel/fs/ext4 \
        kernel/fs/jbd2 kernel/fs/overlayfs kernel/fs/netfs kernel/fs/fscache kernel/fs/mbcache* kernel/net/9p \
        kernel/net/core kernel/drivers/virtio kernel/drivers/block/virtio_blk* kernel/drivers/char/virtio_console* \
        kernel/drivers/char/hw_random kernel/drivers/net/virtio_net* kernel/drivers/net/net_failover* \
        kernel/fs/fuse kernel/fs/autofs -name '*.ko*' 2> /dev/null |
        tar -c -T - | tar -x -C "$box$modules/lib/modules/$version"
    cd "$here"
    ln -s "$linux/bzImage" "$toplevel/kernel"
    ln -s "$linux/initrd" "$toplevel/initrd"
    ln -s "$modules" "$toplevel/kernel-modules"
    references="$references $linux $modules"
fi

# Nix knows them, as if it had built them.
paths() {
    for path in $shell $linux $modules; do
        [ ! -e "$box$path" ] || printf '%s\n\n0\n' "$path"
    done
    printf '%s\n\n1\n%s\n' "$programs" "$shell"
    printf '%s\n\n%s\n' "$system" "$(echo $references | wc -w)"
    printf '%s\n' $references
}
paths | sh "$(dirname "$0")/nix.sh" "$box" "$debian" --option build-users-group "" --register-validity
echo "$system"
