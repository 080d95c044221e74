#!/bin/sh
# Puts a shell and the programs of a Debian with Nix into the store of BOX, as two paths.
#   programs.sh BOX DEBIAN SHELL PROGRAMS
set -eu
box=$1
debian=$2
shell=$3
programs=$4

own=$box$programs
# Its shell needs nothing else, as a script's interpreter has to.
mkdir -p "$box$shell/bin"
cp "$(command -v busybox)" "$box$shell/bin/sh"

# Programs with the libraries that they need.
mkdir -p "$own/usr/lib" "$own/usr/bin" "$own/bin"
names="bash cat chmod cp env grep id kmod ln ls mkdir mknod mount mv nix rm sh sleep stat sync
    systemctl systemd-detect-virt umount"
for program in $names; do
    cp -L "$debian/usr/bin/$program" "$own/usr/bin/"
done
mkdir -p "$own/usr/lib/x86_64-linux-gnu" "$own/usr/lib64"
cp -a "$debian/usr/lib/systemd" "$own/usr/lib/"
# Nothing starts but what its Nix needs, and what tells of that.
find "$own/usr/lib/systemd/system-generators" -type f ! -name systemd-fstab-generator -delete
rm -rf "$own/usr/lib/systemd/system"/*.wants
mkdir -p "$own/usr/lib/systemd/system/sockets.target.wants"
ln -s ../systemd-journald.socket "$own/usr/lib/systemd/system/sockets.target.wants/"
cp -a "$debian/usr/lib/x86_64-linux-gnu/systemd" "$own/usr/lib/x86_64-linux-gnu/"
find "$own/usr/bin" "$own/usr/lib/systemd" "$own/usr/lib/x86_64-linux-gnu/systemd" -type f | while read -r file; do
    chroot "$debian" ldd "${file#"$own"}" 2> /dev/null || true
done | tr '[:blank:]' '\n' | grep '^/.*[.]so' | sort -u | while read -r library; do
    cp -L "$debian$library" "$own/usr/lib/x86_64-linux-gnu/"
done
# What is loaded by its name.
cp -L "$debian"/usr/lib/x86_64-linux-gnu/lib*seccomp.so.2 "$debian"/usr/lib/x86_64-linux-gnu/libkmod.so.2 \
    "$debian"/usr/lib/x86_64-linux-gnu/libmount.so.1 "$own/usr/lib/x86_64-linux-gnu/"
ln -s ../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 "$own/usr/lib64/ld-linux-x86-64.so.2"
ln -s nix "$own/usr/bin/nix-store"
ln -s nix "$own/usr/bin/nix-daemon"
ln -s kmod "$own/usr/bin/modprobe"
# As in NixOS: whoever runs them need not know where their libraries are.
for path in "$own"/usr/bin/*; do
    program=${path##*/}
    cat > "$own/bin/$program" <<END
#!$shell/bin/sh
libraries=$programs/usr/lib/x86_64-linux-gnu
exec \$libraries/ld-linux-x86-64.so.2 --argv0 $program --library-path \$libraries:\$libraries/systemd $programs/usr/bin/$program "\$@"
END
    chmod 0755 "$own/bin/$program"
done
