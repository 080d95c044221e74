# Writes what is known now, and says what was found. Its arguments are the features that any machine has,
# and the address of an uplink's card; its input is settings.
set -eu
features=$1
uplink=$2
container=false
if [ -e /run/host/container-manager ]; then
    container=true
else
    # An emulated processor has virtualization, too, and nobody wants to wait for that.
    case $(systemd-detect-virt --vm || true) in
        none | qemu) ;;
        *) modprobe kvm_intel 2>/dev/null || modprobe kvm_amd 2>/dev/null || true ;;
    esac
fi
if [ -c /dev/kvm ] && (exec 3<>/dev/kvm) 2>/dev/null && chmod 0666 /dev/kvm; then
    features="$features kvm"
fi
{
    cat
    echo "system-features = $features"
    # When it is killed, a path must not be known that is not on its disk. What a container writes
    # is the host's, and outlives it.
    $container || echo "fsync-store-paths = true"
} > /etc/nix/machinist.conf
# A VM's way to what the host reaches.
for address in /sys/class/net/*/address; do
    ! $container && [ "$(cat "$address")" = "$uplink" ] || continue
    card=$(basename "$(dirname "$address")")
    ip link set "$card" up
    ip address add 10.0.2.15/24 dev "$card"
    ip route add default via 10.0.2.2
    echo nameserver 10.0.2.3 > /etc/resolv.conf
done
echo "$features"
# As dpkg-query would, ten times as fast.
sed -n '/^Package: nix-bin$/,/^$/s/^Version: //p' /var/lib/dpkg/status
