# In a builder, as root. One line for each thing; what cannot be told is left out.
if [ -e /dev/pts/ptmx ]; then echo "terminals yes"; else echo "terminals no"; fi
stat -c 'kvm %a' /dev/kvm 2>/dev/null
stat -c 'nix %a %u' /nix
stat -f -c 'space %a %S' /nix/store
stat -f -c 'files %d %c' /nix/store
[ ! -e /run/current-system ] || echo "system $(readlink -f /run/current-system)"
date '+clock %s.%N'
nix --extra-experimental-features nix-command config show 2>/dev/null |
    sed -n 's/^\(sandbox\|sandbox-fallback\|builders\) = */\1 /p'
echo "locks $(find /nix/store -maxdepth 1 -name '*.lock' -mmin +1440 2>/dev/null | wc -l)"
