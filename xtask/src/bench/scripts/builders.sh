export MACHINIST_BUILDERS=/rig/builders
cat > /etc/nix/nix.conf <<'END'
build-users-group =
sandbox = true
auto-allocate-uids = true
experimental-features = nix-command auto-allocate-uids cgroups
substituters =
END
cd /root
ours="ssh-ng://localhost?remote-program=/machinist/machinist%20connect%20b"
theirs="ssh-ng://localhost?remote-program=nix-daemon&remote-store=/root/remote"
machine="x86_64-linux - 8 1 - - -"
timed() {
    local name=$1 begin
    shift
    begin=$(date +%s%N)
    "$@"
    echo "$name $(($(date +%s%N) - begin))"
}

cat > big.nix <<END
derivation {
  name = "big-$round";
  system = "x86_64-linux";
  builder = "/bin/sh";
  args = [ "-c" "printf '%*s' 200000000 $round > \$out" ];
}
END
path=$(nix build --file big.nix --no-link --print-out-paths --store "$ours" --eval-store auto)
timed output nix copy --from "$ours" --no-check-sigs "$path"
again() { nix-store --export "$path" | nix-store --store /root/imported --import > /dev/null; }
timed export again

small() {
    cat > small.nix <<END
map (n: derivation {
  name = "$1-$round-\${toString n}";
  system = "x86_64-linux";
  builder = "/bin/sh";
  args = [ "-c" "echo > \$out" ];
}) (builtins.genList (n: n) 100)
END
    nix build --file small.nix --no-link --max-jobs 0 --builders "$2 $machine"
}
timed fake small fake "$theirs"
timed small small ours "$ours"
