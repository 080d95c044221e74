# Its input: paths that are not there any more. What refers to them is of no use, either. With the argument
# `running`, builds may have read what was left of them: these end.
set -eu
export NIX_REMOTE=local
roots=/nix/var/nix/gcroots/machinist
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat > gone
# It is started again by the next connection.
[ "$1" != running ] || systemctl stop nix-daemon.service
[ ! -d "$roots" ] || sed 's|.*/||' gone | (cd "$roots" && xargs -r rm -f --)
# It may never have been told of some.
xargs -r nix-store --check-validity --print-invalid < gone > unknown
grep -vxFf unknown gone > known || exit 0
xargs nix-store --query --referrers-closure < known | sort -u > all
# All in one call: none is removed before what refers to it.
xargs -s 1900000 nix-store --delete --ignore-liveness < all > /dev/null
