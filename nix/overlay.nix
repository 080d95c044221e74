# machinist for nixpkgs. With it, every NixOS test of that nixpkgs is run by machinist, if it takes
# its driver from `pkgs.nixos-test-driver` as nixpkgs does since 2026; for older ones there is
# ./nixos-test-module.nix.
final: prev: {
  machinist-unwrapped = final.callPackage ./unwrapped.nix { };

  machinist = final.callPackage ./package.nix { };

  nixos-test-driver = final.callPackage ./nixos-test-driver.nix {
    original = prev.nixos-test-driver or null;
  };
}
